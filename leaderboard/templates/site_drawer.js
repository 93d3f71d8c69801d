// The drawer at the side: all that is known of one number.

let opener = null;
let opened = null; // line and column of the cell that the drawer is about

function openDrawer(title, content, from) {
  const drawer = byId("drawer");
  if (from) opener = from;
  byId("drawer-title").replaceChildren(el("bdi", {}, title));
  byId("drawer-body").replaceChildren(...content);
  drawer.hidden = false;
  byId("drawer-body").scrollTop = 0;
  document.documentElement.classList.add("open");
  byId("close").focus({ preventScroll: true });
}

function closeDrawer() {
  if (byId("drawer").hidden) return;
  byId("drawer").hidden = true;
  markOpened(null);
  document.documentElement.classList.remove("open");
  const again = opener?.isConnected ? opener : document.querySelector('#table td[tabindex="0"]');
  opener = null;
  again?.focus({ preventScroll: true });
}

/** Marks the cell that the drawer is about. */
function markOpened(place) {
  opened = place;
  for (const td of document.querySelectorAll("#table td.opened")) td.classList.remove("opened");
  if (place) document.querySelector(`#table td[data-line="${place.number}"][data-column="${place.i}"]`)?.classList.add("opened");
}

function withScale(view, i) {
  return { ...view.tab.columns[i], scale: view.scales[i] };
}

/** Opens a cell of the table. */
function openCell(number, i, from) {
  const entry = current.lines.find((e) => e.number === number);
  const cell = entry?.cells.get(i);
  if (!cell) return;
  const column = withScale(current, i);
  const title = `${lineName(entry)}: ${column.metric}`;
  markOpened({ number, i });
  openDrawer(title, cell.mean ? [subtitle(column, entry.line), ...meanTable(cell, column)] : rowDetails(cell.row, column, entry.line), from);
}

function subtitle(column, line) {
  const said = [`${state.tab.suite} ${state.tab.versions.join("/")}`, "mean over tasks", column.role, column.protocol, ...line.tags];
  return el("p", { class: "sub" }, el("bdi", {}, said.join(", ")));
}

/** Opens one row out of those that a mean is made of. */
function openRow(row) {
  const column = withScale(current, state.tab.columnOf(row));
  const line = state.tab.lines[state.tab.lineOf(row)];
  openDrawer(`${lineName({ line, isBase: line.eraser === BASE })}: ${column.metric}`, rowDetails(row, column, line), null);
}

function rowDetails(row, column, line) {
  const concept = get(row, "concept") === ALL ? "" : get(row, "concept");
  const task = get(row, "task") === ALL ? "all splits" : `task ${get(row, "task")}`;
  const said = [`${get(row, "suite")} ${get(row, "suite_version")}`, task, get(row, "role"), concept, ...line.tags].filter(Boolean);
  const sub = el("p", { class: "sub" }, el("bdi", {}, said.join(", ")));
  const button = el("button", { type: "button" }, "Copy this row as CSV");
  button.addEventListener("click", () => copyText(rowsAsCsv([row]), "1 row as CSV"));
  const groups = provenance(row).flatMap(([title, fields]) => [el("h3", {}, title), fieldList(fields)]);
  return [sub, headline(row, column), ...samples(row), ...groups, el("p", {}, button)];
}

function watchDrawer() {
  byId("close").addEventListener("click", closeDrawer);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeDrawer();
  });
}
