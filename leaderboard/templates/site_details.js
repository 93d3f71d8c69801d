// What the drawer says of a number.

const DIGITS = 16; // of a hash, at first sight

/** All fields of a row as (name, text) in groups; measured numbers as the CSV has them. */
function provenance(row) {
  const plain = (name, write = String) => (get(row, name) === null || get(row, name) === "" ? "–" : write(get(row, name)));
  const count = (name) => plain(name, (v) => grouped(v));
  return [
    ["Measured, as in the CSV", [
      ["metric", plain("metric")], ["protocol", plain("protocol")], ["unit", plain("unit")], ["better", plain("better")], ["value", plain("value")],
      ["ci_low", plain("ci_low")], ["ci_high", plain("ci_high")], ["ci_kind", plain("ci_kind")],
      ["n_planned", count("n_planned")], ["n_scored", count("n_scored")], ["n_failed", count("n_failed")], ["clusters", count("clusters")],
      ["spread", plain("spread")], ["spread_kind", plain("spread_kind")], ["status", plain("status")], ["reason", plain("reason")],
    ]],
    ["Against the base", [
      ["base_value", plain("base_value")], ["delta", plain("delta")], ["delta_low", plain("delta_low")], ["delta_high", plain("delta_high")],
    ]],
    ["What was measured", [
      ["suite", plain("suite")], ["suite_version", plain("suite_version")], ["task", plain("task")], ["role", plain("role")], ["concept", plain("concept")],
      ["base", plain("base")], ["eraser", plain("eraser")], ["preset", plain("preset")], ["train_seed", plain("train_seed")],
    ]],
    ["Hashes (sha256)", ["suite", "base", "erasure", "judge", "reference", "plugin"].map((name) => [`${name}_sha256`, plain(`${name}_sha256`)])],
    ["Where, and at what cost", [
      ["environment", plain("environment")], ["hardware", plain("hardware")], ["erase_seconds", plain("erase_seconds", (v) => `${show(v, "seconds")} s`)],
      ["peak_memory_mb", plain("peak_memory_mb", (v) => `${grouped(v)} MB`)], ["network_evaluations", count("network_evaluations")],
      ["size_bytes", plain("size_bytes", (v) => `${grouped(v)} bytes`)],
    ]],
  ];
}

const FIELD_NAMES = {
  ci_low: "interval from", ci_high: "interval to", ci_kind: "interval by", n_planned: "images planned", n_scored: "images scored", n_failed: "images failed",
  clusters: "prompts (clusters)", base_value: "base", delta: "paired difference", delta_low: "its interval from", delta_high: "its interval to",
  spread: "standard deviation", spread_kind: "over", suite_version: "version", train_seed: "training seed", erase_seconds: "time to erase",
  peak_memory_mb: "peak memory", network_evaluations: "network evaluations", size_bytes: "size of the change",
};

function fieldName(name) {
  return Object.hasOwn(FIELD_NAMES, name) ? FIELD_NAMES[name] : name.replace(/_sha256$/, "");
}

function fieldList(fields) {
  return el("dl", {}, fields.flatMap(([name, text]) => [
    el("dt", {}, fieldName(name)),
    el("dd", { "data-field": name }, name.endsWith("_sha256") && text.length > DIGITS ? el("code", { title: text }, text) : el("bdi", {}, text)),
  ]));
}

/** The number, its interval and its difference to the base, large. */
function headline(row, column) {
  const unit = column.unit;
  const cell = rowCell(row);
  const [low, high, change] = [get(row, "delta_low"), get(row, "delta_high"), get(row, "delta")];
  const sign = againstBase(cell, column.better);
  const parts = [el("p", { class: "big" }, el("b", {}, show(cell.value, unit)), el("span", {}, ` ${unitName(unit)} ${arrow(column.better)}`))];
  parts.push(el("p", {}, cell.value === null ? get(row, "reason") || "no value" : interval(cell.low, cell.high, unit) || `no interval (${get(row, "ci_kind") || "not said"})`));
  if (cell.value !== null) parts.push(bar(cell, column.scale, baseOf(cell), { width: 400, height: 16, pad: 8 }));
  if (change !== null) {
    const mark = sign ? el("span", { class: sign > 0 ? "good" : "bad" }, sign > 0 ? " ▲ better" : " ▼ worse") : "";
    parts.push(el("p", {}, `against the base ${signed(change, unit)} ${interval(low, high, unit, signed)}`, mark));
  }
  return el("div", { class: "headline" }, parts);
}

/** The rows that a mean is made of, each opening its own details. */
function meanTable(cell, column) {
  const lines = cell.rows.map((row) => {
    const button = el("button", { type: "button", class: "link" }, el("bdi", {}, get(row, "task")));
    button.addEventListener("click", () => openRow(row));
    const shown = rowCell(row);
    return el("tr", {}, el("td", {}, button), el("td", {}, show(shown.value, column.unit)), el("td", {}, interval(shown.low, shown.high, column.unit)), el("td", {}, bar(shown, column.scale, baseOf(shown))));
  });
  const said = cell.value === null ? `Measured in ${cell.values.length} of ${cell.of} tasks, so there is no mean.` : `The mean of ${cell.of} tasks. It has no interval: tasks were chosen, not drawn.`;
  const big = el("p", { class: "big" }, el("b", {}, show(cell.value, column.unit)), el("span", {}, ` ${unitName(column.unit)} ${arrow(column.better)}`));
  return [el("div", { class: "headline" }, big, el("p", {}, said)), el("table", { class: "tasks" }, el("tbody", {}, lines))];
}

// -- sample pairs ----------------------------------------------------------------------------------------------------------

const CONCEPTS = 8; // shown for a row over all concepts

/** For the concepts of a row the same prompts and noise under the base and under its model. */
function samples(row) {
  const tab = state.tab;
  const model = get(row, "eraser") === BASE ? `base ${get(row, "base_sha256")}` : get(row, "erasure_sha256");
  const place = [get(row, "suite"), tab.major, get(row, "task")];
  const role = get(row, "role");
  const concepts = get(row, "concept") !== ALL ? [get(row, "concept")] : role === "model" ? [...tab.concepts(place[2]).values()].flat() : tab.concepts(place[2]).get(role) ?? [];
  const made = [];
  for (const concept of [...new Set(concepts)]) {
    const shown = SHOWN.get(JSON.stringify([...place, concept]));
    const base = STRIPS.get(JSON.stringify([...place, concept, `base ${get(row, "base_sha256")}`]));
    const erased = model && get(row, "eraser") !== BASE ? STRIPS.get(JSON.stringify([...place, concept, model])) : null;
    if (shown && (erased || (base && get(row, "eraser") === BASE))) made.push(pair(concept, shown, base, erased, get(row, "eraser")));
  }
  if (!made.length) return [];
  return [el("h3", {}, "Sample pairs: same prompts, same noise"), ...made.slice(0, CONCEPTS)];
}

function pair(concept, shown, base, erased, eraser) {
  const strips = el("div", { class: shown.hidden ? "strips veiled" : "strips" });
  for (const [name, strip] of [["base", base], [eraser, erased]]) {
    if (!strip) continue;
    strips.append(el("bdi", { class: "who" }, name));
    const frame = el("span", { class: "clip" });
    frame.append(el("img", { src: strip.uri, alt: `${strip.count} images of ${concept} by ${name}`, width: strip.height * strip.count, height: strip.height, class: strip.sharp ? "sharp" : null }));
    strips.append(frame);
  }
  const prompts = el("details", {}, el("summary", {}, "prompts"), el("ol", {}, shown.prompts.map((p) => el("li", {}, el("bdi", {}, p)))));
  const head = el("h4", {}, el("bdi", {}, concept));
  if (!shown.hidden) return el("div", { class: "pair" }, head, strips, prompts);
  const button = el("button", { type: "button", "aria-pressed": "false" }, "Show explicit images");
  button.addEventListener("click", () => {
    const veiled = strips.classList.toggle("veiled");
    button.textContent = veiled ? "Show explicit images" : "Hide explicit images";
    button.setAttribute("aria-pressed", String(!veiled));
  });
  return el("div", { class: "pair" }, head, button, strips, prompts);
}
