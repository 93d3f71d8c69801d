// The visible table as CSV and LaTeX; cells that a spreadsheet would run as a formula are neutralised as in leaderboard CSVs.

/** A CSV cell: numbers as they are, texts quoted where they must be, with a quote in front where they begin like a formula. */
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  const text = /^[=+\-@\t\r']/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv(lines) {
  return lines.map((cells) => cells.map(csvCell).join(",") + "\n").join("");
}

/** Rows as in a leaderboard CSV. */
function rowsAsCsv(rows) {
  return csv([FIELDS, ...rows.map((row) => FIELDS.map((name) => get(row, name)))]);
}

function whatIsShown() {
  const task = state.task === MEAN ? "mean over tasks" : taskName(state.task) === ALL ? "all splits" : `task ${taskName(state.task)}`;
  return `${state.tab.suite} ${state.tab.versions.join("/")}, ${task}${state.concept === ALL ? "" : `, ${state.concept}`}`;
}

/** What a visible cell is in words where it has no interval. */
function kindOf(cell) {
  if (!cell) return null;
  return cell.mean ? `mean of ${cell.of} tasks` : get(cell.row, "ci_kind");
}

function tableAsCsv(view) {
  const head = ["eraser", "preset", "base", "what else", "status"];
  for (const i of view.columns) {
    const { protocol, role, detail } = view.tab.columns[i];
    const name = `${protocol} of ${role}${detail.includes("judge ") || detail.includes("reference ") ? ` (${detail})` : ""}`;
    head.push(name, `${name}: ci_low`, `${name}: ci_high`, `${name}: ci_kind`, `${name}: n_scored`);
  }
  const lines = view.lines.map((entry) => {
    const { line } = entry;
    const cells = [line.eraser, line.preset, line.base, line.tags.join(", "), statusOf(entry).join(", ") || "ok"];
    for (const i of view.columns) {
      const cell = entry.cells.get(i);
      cells.push(cell?.value, cell?.low, cell?.high, kindOf(cell), cell ? cell.rows.reduce((n, r) => n + get(r, "n_scored"), 0) : null);
    }
    return cells;
  });
  return csv([head, ...lines]);
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", '"': "''" };

/** A text as LaTeX shows it, in one line: nothing in it is a command, ends a group or leaves a comment. */
function latex(text) {
  return clean(text).replace(/[\\~^<>|"{}#$%&_]/g, (c) => (Object.hasOwn(LATEX, c) ? LATEX[c] : `\\${c}`));
}

function latexNumber(cell, unit) {
  if (!cell) return "";
  if (cell.value === null) return "--";
  const range = interval(cell.low, cell.high, unit);
  const minus = (text) => text.replaceAll("-", "$-$");
  return minus(show(cell.value, unit)) + (range ? ` {\\scriptsize ${minus(range)}}` : "");
}

function tableAsLatex(view) {
  const columns = view.columns.map((i) => view.tab.columns[i]);
  const groups = [];
  for (const { role } of columns) {
    if (groups.at(-1)?.role !== role) groups.push({ role, count: 0 });
    groups.at(-1).count += 1;
  }
  let from = 2;
  const rules = groups.map((g) => `\\cmidrule(lr){${from}-${(from += g.count) - 1}}`).join("");
  const arrows = { higher: " $\\uparrow$", lower: " $\\downarrow$" };
  const heads = columns.map((c) => `${latex(c.metric)}${c.detail ? ` (${latex(c.detail)})` : ""}${c.unit === "rate" ? ", \\%" : ""}${Object.hasOwn(arrows, c.better) ? arrows[c.better] : ""}`);
  const lines = view.lines.map((entry) => {
    const name = [lineName(entry), ...entry.line.tags].join(", ");
    return [latex(name), ...view.columns.map((i) => latexNumber(entry.cells.get(i), view.tab.columns[i].unit))].join(" & ") + " \\\\";
  });
  return [
    `% ${latex(whatIsShown())}; ConceptBench board ${DATA.sha256.slice(0, 16)}; needs booktabs`,
    ...columns.map((c) => `% ${latex(`${c.role}: ${c.protocol}`)}`),
    `\\begin{tabular}{l${"r".repeat(columns.length)}}`,
    "\\toprule",
    ["", ...groups.map((g) => `\\multicolumn{${g.count}}{c}{${latex(ROLE_NAMES[g.role])}}`)].join(" & ") + " \\\\",
    rules,
    ["method", ...heads].join(" & ") + " \\\\",
    "\\midrule",
    ...lines,
    "\\bottomrule",
    "\\end{tabular}",
    "",
  ].join("\n");
}

// -- the clipboard -----------------------------------------------------------------------------------------------------------

/** Copies by a selection, where the page may not use the clipboard itself. */
function copySelected(text) {
  const area = el("textarea", { class: "offscreen", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

async function copyText(text, what) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copySelected(text);
  }
  say(done ? `Copied ${what}` : "This browser does not let the page copy");
}

let silence = 0;

function say(text) {
  const toast = byId("toast");
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => (toast.hidden = true), 2500);
}

function watchCopying() {
  const methods = () => `${current.lines.length} lines`;
  byId("copy-csv").addEventListener("click", () => copyText(tableAsCsv(current), `${methods()} as CSV`));
  byId("copy-latex").addEventListener("click", () => copyText(tableAsLatex(current), `${methods()} as LaTeX`));
  byId("copy-bibtex").addEventListener("click", () => copyText(DATA.bibtex, "the BibTeX entry"));
}
