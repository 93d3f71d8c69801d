// Erased against kept: one point a model, upper right is best, whichever way a metric runs.

const PLOT = { left: 54, right: 18, top: 14, bottom: 44, height: 400 };
const LETTERS = 34; // of a name at the right, at most
const NAMED = 25; // models that can be named there
const NARROW = 480; // pixels below which there is no room for them
const DETAILED = 120; // models that have their intervals drawn and can be reached with the keyboard, one by one
const DRAWN = 2000; // models that are drawn at all

/** Models that have both numbers, as fractions of the axes' ranges that grow towards what is better. */
function pointsOf(view) {
  const columns = [state.x, state.y].map((i) => view.tab.columns[i]);
  if (columns.some((c) => !c)) return [];
  return view.lines.flatMap((entry) => {
    const [x, y] = [entry.cells.get(state.x), entry.cells.get(state.y)];
    if (!x || !y || x.value === null || y.value === null) return [];
    const way = (c) => (c.better === "lower" ? -1 : 1);
    const isWhole = [...x.rows, ...y.rows].every((row) => get(row, "status") === "ok");
    return [{ entry, x, y, isWhole, right: way(columns[0]) * x.value, up: way(columns[1]) * y.value }];
  });
}

/** The Pareto front among methods; the base, which keeps everything, is none of them, nor is a run that is not whole. */
function frontOf(view) {
  return paretoFront(pointsOf(view).filter((p) => !p.entry.isBase && p.isWhole));
}

function roundTicks([low, high]) {
  const raw = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5].find((f, i) => raw / power < [1.5, 3.5, 7.5][i]) ?? 10);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= high / step + 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function axisOf(column, cells, from, to) {
  const values = cells.flatMap((c) => [c.value, c.low, c.high]).filter((v) => v !== null);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const gap = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low - gap, high + gap];
  if (column.unit === "rate") [low, high] = state.zoom ? [Math.max(-0.02, low), Math.min(1.02, high)] : [-0.02, 1.02]; // marks at the ends are whole
  const [first, last] = column.better === "lower" ? [to, from] : [from, to];
  const place = (v) => first + ((Math.min(Math.max(v, low), high) - low) / (high - low)) * (last - first);
  return { place, ticks: roundTicks([low, high]).filter((t) => column.unit !== "rate" || (t >= 0 && t <= 1)), column };
}

function axisName(column) {
  const way = column.better === "lower" ? "lower is better: the axis is turned" : "";
  return [`${column.metric} of ${column.role}${column.detail ? ` (${column.detail})` : ""}, ${unitName(column.unit)}`, way].filter(Boolean).join("; ");
}

function grid(x, y, right) {
  const [bottom, top] = [PLOT.height - PLOT.bottom, PLOT.top];
  const parts = [];
  for (const t of x.ticks) {
    parts.push(draw("line", { class: "grid", x1: x.place(t), x2: x.place(t), y1: top, y2: bottom }));
    parts.push(draw("text", { class: "tickname", x: x.place(t), y: bottom + 17, "text-anchor": "middle" }, tickName(t, x.column.unit)));
  }
  for (const t of y.ticks) {
    parts.push(draw("line", { class: "grid", x1: PLOT.left, x2: right, y1: y.place(t), y2: y.place(t) }));
    parts.push(draw("text", { class: "tickname", x: PLOT.left - 8, y: y.place(t) + 4, "text-anchor": "end" }, tickName(t, y.column.unit)));
  }
  parts.push(draw("text", { class: "axis", x: (PLOT.left + right) / 2, y: PLOT.height - 6, "text-anchor": "middle" }, `${axisName(x.column)} →`));
  parts.push(draw("text", { class: "axis", transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, `${axisName(y.column)} →`));
  return parts;
}

function tickName(value, unit) {
  const scaled = unit === "rate" ? 100 * value : value;
  return Math.abs(scaled) >= 10000 ? scaled.toExponential(0) : String(Number(scaled.toPrecision(4)));
}

/** The border of what the front beats: from the left edge to the right, down at each point. */
function frontLine(front, x, y) {
  if (!front.length) return null;
  const [bottom, left] = [PLOT.height - PLOT.bottom, PLOT.left];
  let path = `M ${left} ${y.place(front[0].y.value)}`;
  front.forEach((p, i) => {
    const next = front[i + 1];
    path += ` H ${x.place(p.x.value)} V ${next ? y.place(next.y.value) : bottom}`;
  });
  return draw("path", { class: "frontline", d: path });
}

function mark(point, x, y, isFront, isDetailed) {
  const [px, py] = [x.place(point.x.value), y.place(point.y.value)];
  const parts = [];
  if (isDetailed && point.x.low !== null) parts.push(draw("line", { class: "whisker", x1: x.place(point.x.low), x2: x.place(point.x.high), y1: py, y2: py }));
  if (isDetailed && point.y.low !== null) parts.push(draw("line", { class: "whisker", x1: px, x2: px, y1: y.place(point.y.low), y2: y.place(point.y.high) }));
  if (point.entry.isBase) parts.push(draw("rect", { class: "mark", x: px - 5, y: py - 5, width: 10, height: 10 }));
  else parts.push(draw("circle", { class: "mark", cx: px, cy: py, r: isFront ? 6 : 4.5 }));
  const names = isFront ? "model front" : point.isWhole ? "model" : "model hollow";
  const label = sayPoint(point, x.column, y.column);
  const g = draw("g", { class: names, tabindex: isDetailed ? "0" : null, role: "button", "aria-label": label, "data-line": point.entry.number }, parts);
  g.style.setProperty("--c", point.entry.line.colour);
  return g;
}

function watchScatter() {
  const place = byId("scatter");
  const modelOf = (event) => event.target.closest?.(".model");
  const light = (event) => pointAt(modelOf(event));
  for (const name of ["pointerover", "focusin"]) place.addEventListener(name, light);
  for (const name of ["pointerleave", "focusout"]) place.addEventListener(name, () => pointAt(null));
  const open = (g) => openCell(Number(g.dataset.line), state.y, g);
  place.addEventListener("click", (event) => modelOf(event) && open(modelOf(event)));
  place.addEventListener("keydown", (event) => {
    if (!modelOf(event) || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    open(modelOf(event));
  });
}

function sayPoint({ entry, x, y }, xColumn, yColumn) {
  const one = (cell, column) => `${column.metric} of ${column.role} ${show(cell.value, column.unit)} ${interval(cell.low, cell.high, column.unit)}`.trim();
  return `${lineName(entry)}: ${one(y, yColumn)}, ${one(x, xColumn)}`;
}

/** Lights up a model in the figure and in the table; nothing where it is null. */
function pointAt(model) {
  for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
  byId("readout").textContent = model?.getAttribute("aria-label") ?? readoutAtRest;
  if (model) for (const found of document.querySelectorAll(`[data-line="${model.dataset.line}"]:not(td)`)) found.classList.add("lit");
}

let readoutAtRest = "";

/** Names at the right, pushed apart so that none covers another, each with a line to its point. */
function labels(points, front, x, y, right) {
  const [bottom, left] = [PLOT.height - PLOT.bottom, right + 16];
  const placed = points.map((p) => ({ p, px: x.place(p.x.value), py: y.place(p.y.value) }));
  placed.sort((a, b) => a.py - b.py || b.px - a.px);
  let last = -Infinity;
  for (const one of placed) last = one.top = Math.max(one.py, last + 14);
  const over = Math.max(0, last - bottom);
  return placed.map(({ p, px, py, top }) => {
    const isFront = front.has(p.entry.number);
    const leader = draw("line", { class: "leader", x1: px, y1: py, x2: left - 4, y2: top - over });
    const text = draw("text", { class: isFront ? "label front" : "label", x: left, y: top - over + 4 }, shortened(labelName(p.entry, points), LETTERS));
    const g = draw("g", { class: "named", "data-line": p.entry.number }, leader, text);
    g.style.setProperty("--c", p.entry.line.colour);
    return g;
  });
}

/** The eraser's name, with its preset where the figure shows several of it. */
function labelName({ line, isBase }, points) {
  if (isBase) return state.tab.bases.length > 1 ? `base ${line.base}` : "base";
  const twins = points.filter((p) => p.entry.line.eraser === line.eraser).length > 1;
  return twins && line.preset ? `${line.eraser}:${line.preset}` : line.eraser;
}

function shortened(text, letters) {
  const all = [...clean(text)];
  return all.length <= letters ? all.join("") : `${all.slice(0, letters - 1).join("")}…`;
}

/** Draws the figure into its place, as wide as there is room. */
function drawScatter(view, frontPoints) {
  const place = byId("scatter");
  const width = Math.max(300, Math.min(860, place.clientWidth || 640));
  const points = pointsOf(view);
  const methods = points.filter((p) => !p.entry.isBase);
  if (!points.length) {
    place.replaceChildren(el("p", { class: "empty" }, "No model has both numbers here: choose other axes, another task or another concept."));
    byId("readout").textContent = readoutAtRest = "";
    return;
  }
  const within = state.zoom && methods.length ? methods : points;
  const columns = [state.x, state.y].map((i) => view.tab.columns[i]);
  const front = new Set(frontPoints.map((p) => p.entry.number));
  const seen = points.filter((p) => within.includes(p)).slice(0, DRAWN);
  const named = seen.length <= NAMED && width >= NARROW;
  const longest = Math.max(...seen.map((p) => Math.min(LETTERS, labelName(p.entry, points).length)));
  const right = width - (named ? Math.min(0.4 * width, 6.4 * longest + 26) : PLOT.right);
  const x = axisOf(columns[0], within.map((p) => p.x), PLOT.left, right);
  const y = axisOf(columns[1], within.map((p) => p.y), PLOT.height - PLOT.bottom, PLOT.top);
  const label = `${axisName(columns[1])} against ${axisName(columns[0])}, one point a model`;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${PLOT.height}`, width, height: PLOT.height, role: "group", "aria-label": label });
  svg.append(...grid(x, y, right), ...[frontLine(frontPoints, x, y)].filter(Boolean), ...(named ? labels(seen, front, x, y, right) : []));
  svg.append(...seen.map((p) => mark(p, x, y, front.has(p.entry.number), seen.length <= DETAILED)));
  place.replaceChildren(svg);
  const names = (named ? "" : " Point at a model to see its name.") + (points.length > DRAWN ? ` The first ${grouped(DRAWN)} of ${grouped(points.length)} are drawn.` : "");
  const hollow = points.some((p) => !p.isWhole) ? " Hollow: limited, partial or development, not in the front." : "";
  const whiskers = seen.length <= DETAILED && points.some((p) => p.x.low !== null || p.y.low !== null) ? " Lines are 95 % intervals." : "";
  readoutAtRest = `Dashed: the Pareto front, by values and not by intervals (${frontPoints.length} of ${methods.length} methods).${whiskers}${hollow}${names}`;
  byId("readout").textContent = readoutAtRest;
}
