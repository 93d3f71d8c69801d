// Putting it together: one view at a time, kept in the address so that it can be linked to.

const TABS = DATA.tabs.map((data) => new Tab(data));
let current = null;
let frontNumbers = new Set(); // lines of the Pareto front

/** Draws everything anew for the state. */
function update() {
  current = viewOf(state.tab);
  const front = frontOf(current);
  frontNumbers = new Set(front.map((p) => p.entry.number));
  drawFilters(current);
  drawTable(current, frontNumbers);
  drawScatter(current, front);
  drawAbout(current);
  writeAddress();
}

/** Only the order of the lines changed. */
function resort() {
  current = viewOf(state.tab);
  drawOrder(current, frontNumbers);
  writeAddress();
}

function writeAddress() {
  const { tab } = state;
  const id = (i) => tab.columns[i]?.id ?? "";
  const parts = { tab: tab.id, task: state.task, concept: state.concept === ALL ? "" : state.concept, find: state.text, status: state.status, base: state.base, method: state.kind };
  if (state.sort) Object.assign(parts, { sort: id(state.sort.column), worst: state.sort.worst ? "1" : "" });
  Object.assign(parts, { up: id(state.y), right: id(state.x), zoom: state.zoom ? "1" : "" });
  const text = new URLSearchParams(Object.entries(parts).filter(([, v]) => v)).toString();
  try {
    history.replaceState(null, "", `#${text}`);
  } catch {
    // some browsers do not allow it for files
  }
}

/** Takes from the address what this board has; everything else in it is ignored. */
function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const part = (name) => parts.get(name) ?? "";
  const tab = TABS.find((t) => t.id === part("tab"));
  chooseTab(tab ?? TABS[0]);
  if (!tab) return;
  if (taskChoices(tab).some(([value]) => value === part("task"))) state.task = part("task");
  if (state.task !== MEAN && [...tab.concepts(taskName(state.task)).values()].flat().includes(part("concept"))) state.concept = part("concept");
  if (tab.statuses.includes(part("status"))) state.status = part("status");
  if (tab.bases.includes(part("base"))) state.base = part("base");
  if (tab.kinds.includes(part("method"))) state.kind = part("method");
  state.text = part("find").slice(0, 200);
  state.zoom = part("zoom") === "1";
  const column = (name) => tab.places.get(part(name));
  state.sort = column("sort") === undefined ? null : { column: column("sort"), worst: part("worst") === "1" };
  state.y = column("up") ?? state.y;
  state.x = column("right") ?? state.x;
  update();
}

// -- light and dark ----------------------------------------------------------------------------------------------------------

function isDark() {
  return (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  byId("theme").textContent = isDark() ? "Light" : "Dark";
}

function watchTheme() {
  let kept = null;
  try {
    kept = localStorage.getItem("conceptbench-theme");
  } catch {
    // a browser may keep nothing for files
  }
  setTheme(["light", "dark"].includes(kept) ? kept : null);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(null));
  byId("theme").addEventListener("click", () => {
    setTheme(isDark() ? "light" : "dark");
    try {
      localStorage.setItem("conceptbench-theme", document.documentElement.dataset.theme);
    } catch {
      // then only until it is closed
    }
  });
}

watchTheme();
watchTable();
watchScatter();
watchDrawer();
watchFilters();
watchCopying();
readAddress();
let [drawnWidth, wasNarrow] = [0, isNarrow()];
new ResizeObserver(([entry]) => {
  const width = Math.round(entry.contentRect.width);
  if (Math.abs(width - drawnWidth) > 8) drawScatter(current, frontOf(current));
  if (wasNarrow !== isNarrow()) drawTable(current, frontNumbers);
  [drawnWidth, wasNarrow] = [width, isNarrow()];
}).observe(byId("scatter"));
window.addEventListener("hashchange", readAddress);
