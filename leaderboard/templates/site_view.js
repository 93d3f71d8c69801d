// What is to be seen of a tab: its lines, columns and cells after filtering and sorting. Nothing here touches the page.

/** The choices of the reader. `sort` is null for the order of the rows. */
const state = {
  tab: null,
  task: "",
  concept: ALL,
  roles: new Set(),
  hidden: new Set(),
  text: "",
  status: "",
  base: "",
  kind: "",
  sort: null,
  x: 0,
  y: 0,
  zoom: false,
};

const MEAN = "mean"; // beside the names of tasks, which are kept as `task NAME`

function taskName(choice) {
  return choice.startsWith("task ") ? choice.slice(5) : null;
}

/** A cell of one row: its number, and how far it may be off. */
function rowCell(row) {
  const value = get(row, "value");
  return { row, rows: [row], of: 1, value, low: get(row, "ci_low"), high: get(row, "ci_high"), mean: false };
}

/** A cell that is a mean over tasks; it has a value only if all tasks have. */
function meanCell(rows, of) {
  const values = rows.map((r) => get(r, "value")).filter((v) => v !== null);
  const value = values.length === of ? values.reduce((a, b) => a + b, 0) / of : null;
  return { row: rows[0], rows, of, value, low: null, high: null, mean: true, values };
}

/** The cells of a tab under the chosen task and concept: line -> column -> cell. */
function cellsOf(tab, isShown) {
  const cells = tab.lines.map(() => new Map());
  if (state.task !== MEAN) {
    for (const row of tab.rows(taskName(state.task), state.concept)) {
      if (isShown(row)) cells[tab.lineOf(row)].set(tab.columnOf(row), rowCell(row));
    }
    return cells;
  }
  const tasks = tab.columns.map(() => new Set());
  const found = tab.lines.map(() => new Map());
  for (const task of tab.single) {
    for (const row of tab.rows(task, ALL)) {
      const column = tab.columnOf(row);
      tasks[column].add(task);
      if (isShown(row)) {
        const of = found[tab.lineOf(row)];
        of.set(column, [...(of.get(column) ?? []), row]);
      }
    }
  }
  found.forEach((of, line) => of.forEach((rows, column) => cells[line].set(column, meanCell(rows, tasks[column].size))));
  return cells;
}

/** Where bars of a column begin and end: 0 and 1 for rates, else the range of all its values. */
function scalesOf(tab, cells) {
  return tab.columns.map((column, i) => {
    if (column.unit === "rate") return [0, 1];
    let [low, high] = [Infinity, -Infinity];
    for (const line of cells) {
      const cell = line.get(i);
      if (!cell) continue;
      for (const v of [cell.value, cell.low, cell.high, ...(cell.values ?? [])]) {
        if (v !== null) [low, high] = [Math.min(low, v), Math.max(high, v)];
      }
    }
    return high > low ? [low, high] : [low - 0.5, low + 0.5];
  });
}

function matches(line, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const all = [`${line.eraser}:${line.preset}`, line.base, line.kind, ...line.tags].join(" ").toLowerCase();
  return words.every((w) => all.includes(w));
}

/** Which line is before another: better ones first (or last), those without a value at the end, the base at the top. */
function comparison(tab, entries) {
  const order = state.sort ? [state.sort] : [];
  if (state.sort) {
    for (const column of [tab.headline.erased, tab.headline.kept]) {
      if (column !== null && column !== undefined && column !== state.sort.column) order.push({ column, worst: false });
    }
  }
  const keys = order.map(({ column, worst }) => {
    const sign = (tab.columns[column].better === "lower" ? 1 : -1) * (worst ? -1 : 1);
    const keyOf = (value) => (value === null || value === undefined ? null : sign * value);
    return new Map(entries.map((e) => [e.number, keyOf(e.cells.get(column)?.value)]));
  });
  return (a, b) => {
    if (a.isBase !== b.isBase) return a.isBase ? -1 : 1;
    for (const key of keys) {
      const [p, q] = [key.get(a.number), key.get(b.number)];
      if (p === q) continue;
      if (p === null || q === null) return p === null ? 1 : -1;
      return p - q;
    }
    return a.number - b.number;
  };
}

/** Everything that the table and the figure show. */
function viewOf(tab) {
  const isShown = (row) => !state.status || get(row, "status") === state.status || get(row, "eraser") === BASE;
  const cells = cellsOf(tab, isShown);
  const entries = tab.lines.map((line, number) => ({ number, line, cells: cells[number], isBase: line.eraser === BASE }));
  const kept = entries.filter(
    (e) =>
      (!state.base || e.line.base === state.base) &&
      (e.isBase || (e.cells.size && (!state.kind || e.line.kind === state.kind) && matches(e.line, state.text))),
  );
  const used = new Set(kept.flatMap((e) => [...e.cells.keys()]));
  const columns = orderedColumns(tab).filter((i) => used.has(i));
  return {
    tab,
    lines: kept.sort(comparison(tab, kept)),
    columns: columns.filter((i) => state.roles.has(tab.columns[i].role) && !state.hidden.has(i)),
    available: columns,
    scales: scalesOf(tab, cells),
    total: entries.filter((e) => !e.isBase && e.cells.size).length,
  };
}

/** Columns by role, the headline first. */
function orderedColumns(tab) {
  const leads = [tab.headline.erased, tab.headline.kept];
  const lead = (i) => (leads.includes(i) ? 0 : 1);
  return tab.columns.map((_, i) => i).sort((a, b) => ROLES.indexOf(tab.columns[a].role) - ROLES.indexOf(tab.columns[b].role) || lead(a) - lead(b) || a - b);
}

/** 1 better than the base, -1 worse, 0 not known: by the interval of the paired difference. */
function againstBase(cell, better) {
  if (cell.mean) return 0;
  const [low, high] = [get(cell.row, "delta_low"), get(cell.row, "delta_high")];
  if (low === null || high === null || !Object.hasOwn(ARROWS, better)) return 0;
  const way = low > 0 ? 1 : high < 0 ? -1 : 0;
  return better === "lower" ? -way || 0 : way;
}

/** Points that no other one beats in both directions: those of the Pareto front, from left to right. */
function paretoFront(points) {
  const sorted = [...points].sort((a, b) => b.right - a.right || b.up - a.up);
  const front = [];
  let best = -Infinity;
  for (const p of sorted) {
    const twin = front.length && front.at(-1).right === p.right && front.at(-1).up === p.up;
    if (p.up > best || twin) front.push(p);
    best = Math.max(best, p.up);
  }
  return front.reverse();
}

/** The base's value for a cell; of a mean, the mean over the same tasks. */
function baseOf(cell) {
  const values = cell.rows.map((r) => (get(r, "eraser") === BASE ? null : get(r, "base_value")));
  return values.length < cell.of || values.includes(null) ? null : values.reduce((a, b) => a + b, 0) / values.length;
}
