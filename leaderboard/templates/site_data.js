// The rows, as the page holds them, and elements made of text nodes: nothing of the data is ever parsed as HTML.

const DATA = JSON.parse(document.getElementById("board").textContent);

const READERS = new Map(
  Object.entries(DATA.rows).map(([name, c]) => [
    name,
    "one" in c ? () => c.one : "words" in c ? (row) => c.words[c.at[row]] : (row) => c.all[row],
  ]),
);
const FIELDS = [...READERS.keys()];

/** A field of a row by its number. */
function get(row, name) {
  return READERS.get(name)(row);
}

const STRIPS = new Map(Object.entries(DATA.strips));
const SHOWN = new Map(Object.entries(DATA.shown));

const BASE = "base";
const ALL = "*";
const ROLES = ["target", "retained", "restored", "unseen", "model"];
const ROLE_NAMES = { target: "Erased targets", retained: "Kept concepts", restored: "Brought back", unseen: "Unseen by the eraser", model: "The erasure itself" };

/** Which rows of a tab are of which task and concept. Made once a tab. */
class Tab {
  constructor(data) {
    Object.assign(this, data);
    this.id = `${data.suite} ${data.major}`;
    this.places = new Map(data.columns.map((c, i) => [c.id, i]));
    this.bases = [...new Set(data.lines.map((l) => l.base))];
    this.kinds = [...new Set(data.lines.map((l) => l.kind))].filter((k) => k !== BASE);
    this.of = new Map();
    for (let row = this.start; row < this.start + this.count; row++) {
      const tasks = this.of.get(get(row, "task")) ?? new Map();
      this.of.set(get(row, "task"), tasks);
      const concepts = tasks.get(get(row, "concept")) ?? [];
      tasks.set(get(row, "concept"), concepts);
      concepts.push(row);
    }
    this.statuses = this.counts("status").map(([s]) => s);
    this.single = this.tasks.filter((t) => t !== ALL);
  }

  /** The values of a field in the tab's rows and how often each is there, the most frequent first. Counted once. */
  counts(name) {
    this.counted ??= new Map();
    if (!this.counted.has(name)) {
      const found = new Map();
      for (let row = this.start; row < this.start + this.count; row++) found.set(get(row, name), (found.get(get(row, name)) ?? 0) + 1);
      this.counted.set(name, [...found].sort((a, b) => b[1] - a[1]));
    }
    return this.counted.get(name);
  }

  lineOf(row) {
    return this.line[row - this.start];
  }

  columnOf(row) {
    return this.column[row - this.start];
  }

  rows(task, concept) {
    return this.of.get(task)?.get(concept) ?? [];
  }

  /** Concepts of a task by role, without the rows over all of them. */
  concepts(task) {
    const found = new Map();
    for (const [concept, rows] of this.of.get(task) ?? []) {
      if (concept !== ALL) for (const role of new Set(rows.map((r) => get(r, "role")))) found.set(role, [...(found.get(role) ?? []), concept]);
    }
    return found;
  }
}

// -- texts and elements ---------------------------------------------------------------------------------------------

// control characters, marks that turn the direction of writing, and characters without width: shown by their number
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** The text with its invisible characters made visible. */
function clean(text) {
  return String(text).replace(UNSEEN, (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : clean(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== "") element.append(child instanceof Node ? child : clean(child));
  }
  return element;
}

/** An HTML element. The names of attributes are ours; values and texts may be anybody's. */
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}
