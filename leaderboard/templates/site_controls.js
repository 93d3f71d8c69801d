// Tabs, filters and choices.

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => el("option", { value }, text)));
  for (const [i, [value]] of entries.entries()) select.options[i].value = value; // as it is, invisible characters and all
  select.value = chosen;
  select.closest("label").hidden = entries.length < 2;
}

function taskChoices(tab) {
  const choices = [];
  if (tab.tasks.includes(ALL)) choices.push([`task ${ALL}`, "all splits together"]);
  if (tab.single.length > 1) choices.push([MEAN, `mean of ${tab.single.length} tasks`]);
  return [...choices, ...tab.single.map((t) => [`task ${t}`, t])];
}

function drawTabs() {
  const focused = byId("tabs").contains(document.activeElement);
  byId("tabs").replaceChildren(
    ...TABS.map((tab, i) => {
      const chosen = tab === state.tab;
      const button = el("button", { type: "button", role: "tab", id: `tab-${i}`, "aria-selected": String(chosen), "aria-controls": "panel", tabindex: chosen ? "0" : "-1" });
      button.append(el("bdi", {}, tab.suite), el("small", {}, tab.versions.length > 1 ? `${tab.major}.x` : tab.versions[0]));
      button.addEventListener("click", () => chooseTab(tab));
      return button;
    }),
  );
  const chosen = `tab-${TABS.indexOf(state.tab)}`;
  byId("panel").setAttribute("aria-labelledby", chosen);
  if (focused) byId(chosen).focus();
}

function chooseTab(tab) {
  state.tab = tab;
  Object.assign(state, { task: taskChoices(tab)[0][0], concept: ALL, text: "", status: "", base: "", kind: "", hidden: new Set(), zoom: false });
  const roles = ROLES.filter((r) => tab.columns.some((c) => c.role === r));
  state.roles = new Set(roles.length > 1 ? roles.filter((r) => r !== "model") : roles);
  const first = (role) => tab.columns.findIndex((c) => c.role === role && c.unit === "rate");
  state.y = tab.headline.erased ?? Math.max(0, first("target"));
  state.x = tab.headline.kept ?? Math.max(0, first("retained"));
  state.sort = tab.columns[state.y] ? { column: state.y, worst: false } : null;
  drawTabs();
  update();
}

function drawFilters(view) {
  const { tab } = view;
  options(byId("task"), taskChoices(tab), state.task);
  const concepts = state.task === MEAN ? new Map() : tab.concepts(taskName(state.task));
  const names = [...concepts].flatMap(([role, all]) => all.map((c) => [c, `${c} (${role})`]));
  options(byId("concept"), [[ALL, "over all concepts"], ...new Map(names)], state.concept);
  options(byId("kind"), [["", "all methods"], ...(tab.kinds.length > 1 ? tab.kinds.map((k) => [k, k]) : [])], state.kind);
  options(byId("base"), [["", "all bases"], ...(tab.bases.length > 1 ? tab.bases.map((b) => [b, b]) : [])], state.base);
  options(byId("status"), [["", "any status"], ...(tab.statuses.length > 1 ? tab.statuses.map((s) => [s, s]) : [])], state.status);
  if (byId("text").value !== state.text) byId("text").value = state.text;
  drawRoles(tab);
  drawColumnChoice(view);
  const axes = view.available.map((i) => [String(i), `${tab.columns[i].metric} of ${tab.columns[i].role}${tab.columns[i].detail ? ` (${tab.columns[i].detail})` : ""} ${arrow(tab.columns[i].better)}`]);
  options(byId("y"), axes, String(state.y));
  options(byId("x"), axes, String(state.x));
  byId("zoom").checked = state.zoom;
}

function drawRoles(tab) {
  const roles = ROLES.filter((r) => tab.columns.some((c) => c.role === r));
  const chips = roles.map((role) => {
    const chip = el("button", { type: "button", class: "chip", "aria-pressed": String(state.roles.has(role)), "data-role": role, title: ROLE_NAMES[role] }, role);
    chip.addEventListener("click", () => {
      if (!state.roles.delete(role)) state.roles.add(role);
      update();
      [...document.querySelectorAll("#roles .chip")].find((c) => c.dataset.role === role).focus();
    });
    return chip;
  });
  byId("roles").querySelector("div").replaceChildren(...chips);
  byId("roles").hidden = roles.length < 2;
}

function drawColumnChoice(view) {
  const list = byId("columns").querySelector(".list");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.column : null;
  const lines = view.available
    .filter((i) => state.roles.has(view.tab.columns[i].role))
    .map((i) => {
      const { id, metric, role, detail } = view.tab.columns[i];
      const box = el("input", { type: "checkbox", "data-column": id });
      box.checked = !state.hidden.has(i);
      box.addEventListener("change", () => {
        if (!state.hidden.delete(i)) state.hidden.add(i);
        update();
      });
      return el("label", {}, box, el("bdi", {}, ` ${metric} of ${role}${detail ? ` (${detail})` : ""}`));
    });
  list.replaceChildren(...lines);
  if (focused) [...list.querySelectorAll("input")].find((b) => b.dataset.column === focused)?.focus();
}

function drawAbout(view) {
  const { tab } = view;
  byId("suite-title").textContent = clean(tab.title || tab.suite);
  byId("suite-text").textContent = clean(tab.description.trim());
  byId("suite-text").hidden = !tab.description;
  byId("shown").textContent = clean(whatIsShown());
  const few = (name, write = (v) => v) => tab.counts(name).map(([v]) => write(v)).filter(Boolean).slice(0, 5).join(" / ");
  const facts = [["suite", `${tab.suite} ${tab.versions.join(", ")}`], ...Object.entries(tab.facts), ["base", tab.bases.join(", ")]];
  facts.push(["rows", tab.counts("status").map(([s, n]) => `${grouped(n)} ${s}`).join(", ")]);
  facts.push(["environment", few("environment")], ["hardware", few("hardware")], ["suite sha256", few("suite_sha256", (h) => h.slice(0, DIGITS))]);
  if (DATA.split.length) facts.push(["shown apart", `files that give other values for the same number: ${DATA.split.join(", ")}`]);
  for (const i of view.columns) facts.push([`${tab.columns[i].metric} of ${tab.columns[i].role}`, tab.columns[i].protocol]);
  byId("facts").replaceChildren(...facts.filter(([, v]) => v).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, el("bdi", {}, v))]));
}

function watchFilters() {
  const bind = (id, read) => byId(id).addEventListener("input", (event) => {
    read(event.target);
    update();
  });
  bind("text", (t) => (state.text = t.value));
  bind("task", (t) => Object.assign(state, { task: t.value, concept: ALL }));
  for (const name of ["concept", "kind", "base", "status"]) bind(name, (t) => (state[name] = t.value));
  for (const name of ["x", "y"]) bind(name, (t) => (state[name] = Number(t.value)));
  bind("zoom", (t) => (state.zoom = t.checked));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", () => chooseTab(state.tab));
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    chooseTab(TABS.at((TABS.indexOf(state.tab) + step) % TABS.length));
  });
}
