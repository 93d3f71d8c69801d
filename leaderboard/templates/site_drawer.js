// The drawer at the side: all that is known of one number.

let opener = null;

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
  document.documentElement.classList.remove("open");
  const again = opener?.isConnected ? opener : document.querySelector('#table td[tabindex="0"]');
  opener = null;
  again?.focus({ preventScroll: true });
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
  openDrawer(title, cell.mean ? [subtitle(cell, column), ...meanTable(cell, column)] : rowDetails(cell.row, column), from);
}

function subtitle(cell, column) {
  return el("p", { class: "sub" }, `${state.tab.suite} ${state.tab.major}.x, ${ROLE_NAMES[column.role].toLowerCase()}, ${column.protocol}`);
}

/** Opens one row out of those that a mean is made of. */
function openRow(row) {
  const column = withScale(current, state.tab.columnOf(row));
  const line = state.tab.lines[state.tab.lineOf(row)];
  openDrawer(`${lineName({ line, isBase: line.eraser === BASE })}: ${column.metric}`, rowDetails(row, column), null);
}

function rowDetails(row, column) {
  const where = get(row, "concept") === ALL ? "" : `, ${get(row, "concept")}`;
  const task = get(row, "task") === ALL ? "all splits" : `task ${get(row, "task")}`;
  const sub = el("p", { class: "sub" }, el("bdi", {}, `${get(row, "suite")} ${get(row, "suite_version")}, ${task}, ${get(row, "role")}${where}`));
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
