// Intervals as small drawings.

const BAR = { width: 72, height: 9, pad: 4 };

/** A value on the scale of its column with its interval; a mean as one dot a task. The base is a tick. */
function bar(cell, scale, base, size = BAR) {
  const x = (v) => size.pad + ((Math.min(Math.max(v, scale[0]), scale[1]) - scale[0]) / (scale[1] - scale[0])) * (size.width - 2 * size.pad);
  const middle = size.height / 2;
  const parts = [draw("line", { class: "track", x1: size.pad, x2: size.width - size.pad, y1: middle, y2: middle })];
  if (base !== null && base !== undefined) parts.push(draw("line", { class: "tick", x1: x(base), x2: x(base), y1: 0.5, y2: size.height - 0.5 }));
  if (cell.low !== null && cell.high !== null) parts.push(draw("line", { class: "range", x1: x(cell.low), x2: x(cell.high), y1: middle, y2: middle }));
  for (const v of cell.mean ? cell.values : []) parts.push(draw("circle", { class: "part", cx: x(v), cy: middle, r: size.height / 4.5 }));
  if (cell.value !== null) {
    if (cell.mean) parts.push(draw("line", { class: "middle", x1: x(cell.value), x2: x(cell.value), y1: 1, y2: size.height - 1 }));
    else parts.push(draw("circle", { class: "point", cx: x(cell.value), cy: middle, r: size.height / 3.2 }));
  }
  const attributes = { class: "ci", width: size.width, height: size.height, viewBox: `0 0 ${size.width} ${size.height}`, "aria-hidden": "true" };
  return draw("svg", attributes, parts);
}
