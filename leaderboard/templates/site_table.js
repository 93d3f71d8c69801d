// The table: as many lines as are asked for, never all of thousands.

const LINES = 50; // shown at first, and with every "more"
const LOOSE = 1.4; // how much wider than it must be a table with few columns may be
const FITTING = 40; // up to so many the page scrolls, and beyond the table
let linesShown = LINES;

function headOf(view) {
  const { tab } = view;
  const groups = [];
  for (const i of view.columns) {
    const { role } = tab.columns[i];
    if (groups.at(-1)?.role !== role) groups.push({ role, count: 0 });
    groups.at(-1).count += 1;
  }
  const top = el("tr", {}, el("th", { class: "corner" }), groups.map((g) => el("th", { class: "role", colspan: g.count, scope: "colgroup" }, ROLE_NAMES[g.role])));
  const firsts = new Set(groups.map((_, i) => groups.slice(0, i).reduce((sum, g) => sum + g.count, 0)));
  const below = el("tr", {}, el("th", { class: "method", scope: "col" }, "method"), view.columns.map((i, n) => headCell(view, i, firsts.has(n))));
  return el("thead", {}, top, below);
}

function headCell(view, i, first) {
  const column = view.tab.columns[i];
  const sorted = state.sort?.column === i ? state.sort : null;
  const falls = (column.better !== "lower") !== Boolean(sorted?.worst);
  const lead = [view.tab.headline.erased, view.tab.headline.kept].includes(i);
  const label = `${column.metric}, ${column.unit}${column.better ? `, ${column.better} is better` : ""}: sort`;
  const mark = el("span", { class: "sorted", "aria-hidden": "true" }, sorted ? (falls ? "▼" : "▲") : "");
  const button = el("button", { type: "button", title: `${column.protocol}. ${label}`, "aria-label": label, "data-column": column.id });
  button.append(el("span", { class: "metric" }, column.metric), el("span", { class: "arrow" }, arrow(column.better)), mark);
  button.addEventListener("click", () => sortBy(i));
  const unit = el("small", {}, [unitName(column.unit), column.detail].filter(Boolean).join(" · "));
  const names = [first && "first", lead && "lead", sorted && "by"].filter(Boolean).join(" ");
  return el("th", { scope: "col", class: names, "aria-sort": sorted ? (falls ? "descending" : "ascending") : null }, button, unit);
}

/** Best first, then worst first, then in the order of the rows. */
function sortBy(column) {
  if (state.sort?.column !== column) state.sort = { column, worst: false };
  else state.sort = state.sort.worst ? null : { column, worst: true };
  linesShown = LINES;
  resort();
  const id = state.tab.columns[column].id;
  [...document.querySelectorAll("#table thead button")].find((b) => b.dataset.column === id)?.focus();
}

function statusOf(entry) {
  const found = new Set();
  entry.cells.forEach((cell) => cell.rows.forEach((row) => found.add(get(row, "status"))));
  return [...found].filter((s) => s !== "ok");
}

function lineName({ line, isBase }) {
  return isBase ? `base ${line.base}` : line.preset ? `${line.eraser}:${line.preset}` : line.eraser;
}

function methodCell(entry, onFront) {
  const { line, isBase } = entry;
  const dot = el("i", { class: onFront ? "dot front" : "dot", title: onFront ? "on the Pareto front of the figure" : null });
  dot.style.setProperty("--c", line.colour);
  const name = el("bdi", { class: "name" }, line.eraser);
  const preset = isBase ? el("bdi", { class: "preset" }, line.base) : line.preset ? el("bdi", { class: "preset" }, line.preset) : null;
  const tags = [...new Set([...line.tags, ...statusOf(entry)])].map((t) => el("bdi", { class: "tag" }, t));
  return el("th", { scope: "row", class: "method", title: `${lineName(entry)}${line.tags.length ? `, ${line.tags.join(", ")}` : ""}` }, el("div", {}, dot, name, preset, tags));
}

function valueCell(view, entry, i) {
  const column = view.tab.columns[i];
  const cell = entry.cells.get(i);
  if (!cell) return el("td");
  const sign = againstBase(cell, column.better);
  const mark = el("span", { class: "no" });
  if (sign) filled(mark, { class: sign > 0 ? "good" : "bad", role: "img", "aria-label": sign > 0 ? "better than the base" : "worse than the base" }, [sign > 0 ? "▲" : "▼"]);
  const value = el("span", { class: "value" }, cell.mean && cell.value === null ? `${cell.values.length} of ${cell.of}` : show(cell.value, column.unit));
  const td = el("td", { tabindex: "-1", "data-line": entry.number, "data-column": i, title: sayCell(cell, column), "aria-haspopup": "dialog" });
  if (cell.mean && cell.value === null) td.classList.add("incomplete");
  td.append(el("div", {}, value, mark), bar(cell, view.scales[i], baseOf(cell)));
  return td;
}

/** A cell in words. */
function sayCell(cell, column) {
  if (cell.mean) return cell.value === null ? `measured in ${cell.values.length} of ${cell.of} tasks: no mean` : `mean of ${cell.of} tasks, no interval`;
  const range = interval(cell.low, cell.high, column.unit);
  const unit = unitName(column.unit);
  if (cell.value === null) return get(cell.row, "reason") || "no value";
  return `${show(cell.value, column.unit)} ${unit} ${range || get(cell.row, "ci_kind") || "no interval"}, n ${get(cell.row, "n_scored")}`;
}

function tableRow(view, entry, front) {
  const cells = view.columns.map((i) => valueCell(view, entry, i));
  let role = null;
  view.columns.forEach((i, n) => {
    if (view.tab.columns[i].role !== role) cells[n].classList.add("first");
    role = view.tab.columns[i].role;
  });
  return el("tr", { class: entry.isBase ? "base" : null, "data-line": entry.number }, methodCell(entry, front.has(entry.number)), cells);
}

function isNarrow() {
  return matchMedia("(max-width: 640px)").matches;
}

/** Widths that do not depend on what is sorted to the top: nothing jumps, and the browser need not look at every cell. */
function widthsOf(view) {
  const letters = (line) => [line.eraser, line.preset, ...line.tags].join("  ").length + 3 * line.tags.length;
  const longest = Math.max(6, ...view.lines.map((e) => letters(e.line)));
  const widths = [Math.min(isNarrow() ? 150 : 330, 7.4 * longest + 44)];
  for (const i of view.columns) {
    const { metric, detail } = view.tab.columns[i];
    widths.push(Math.min(190, Math.max(BAR.width + 16, 7.6 * metric.length + 46, 5.6 * detail.length + 40)));
  }
  const columns = widths.map((width, n) => {
    const col = el("col", { class: n && state.sort?.column === view.columns[n - 1] ? "by" : null });
    col.style.width = `${Math.round(width)}px`;
    return col;
  });
  const total = widths.reduce((a, b) => a + b);
  byId("table").style.minWidth = `${Math.round(total)}px`;
  byId("scroll").style.maxWidth = `${Math.round(LOOSE * total)}px`;
  return el("colgroup", {}, columns);
}

let made = new Map(); // line -> its row in the page; what was drawn once is only moved when the order changes

/** Draws the table of a view. */
function drawTable(view, front) {
  made = new Map();
  drawOrder(view, front);
}

/** The same lines in another order, or more of them. */
function drawOrder(view, front) {
  const rows = view.lines.slice(0, linesShown).map((entry) => {
    if (!made.has(entry.number)) made.set(entry.number, tableRow(view, entry, front));
    return made.get(entry.number);
  });
  byId("table").replaceChildren(widthsOf(view), headOf(view), el("tbody", {}, rows));
  byId("scroll").classList.toggle("long", view.lines.length > FITTING);
  for (const td of document.querySelectorAll('#table td[tabindex="0"]')) td.tabIndex = -1;
  const first = document.querySelector("#table td[tabindex]");
  if (first) first.tabIndex = 0;
  markOpened(opened);
  const shown = view.lines.filter((e) => !e.isBase).length;
  const rest = view.lines.length - linesShown;
  byId("count").textContent = `${shown} of ${view.total} method${view.total === 1 ? "" : "s"}${view.columns.length ? "" : "; no column is chosen"}`;
  byId("more").hidden = rest <= 0;
  byId("more").textContent = `Show ${Math.min(rest, LINES)} more`;
}

// -- moving in the table with the keyboard ------------------------------------------------------------------------------

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function focusCell(td) {
  for (const other of document.querySelectorAll('#table td[tabindex="0"]')) other.tabIndex = -1;
  td.tabIndex = 0;
  td.focus();
}

/** The next cell in a direction that has something in it. */
function neighbour(td, [down, right]) {
  let [tr, index] = [td.parentElement, td.cellIndex];
  for (;;) {
    if (down) tr = down > 0 ? tr.nextElementSibling : tr.previousElementSibling;
    index += right;
    const next = tr?.cells[index];
    if (!next || next.tagName !== "TD") return null;
    if (next.hasAttribute("tabindex")) return next;
  }
}

function watchTable() {
  const table = byId("table");
  const open = (td) => {
    focusCell(td);
    openCell(Number(td.dataset.line), Number(td.dataset.column), td);
  };
  table.addEventListener("click", (event) => {
    const td = event.target.closest("td[tabindex]");
    if (td) open(td);
  });
  table.addEventListener("keydown", (event) => {
    const td = event.target.closest("td[tabindex]");
    if (!td) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(td);
    } else if (Object.hasOwn(MOVES, event.key)) {
      event.preventDefault();
      const next = neighbour(td, MOVES[event.key]);
      if (next) focusCell(next);
    }
  });
  byId("more").addEventListener("click", () => {
    linesShown += LINES;
    drawOrder(current, frontNumbers);
  });
}
