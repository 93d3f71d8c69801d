// How numbers are written: as in reports.

const COUNTS = new Set(["bytes", "evaluations", "tensors", "MB", "detections"]);
const FRACTIONS = new Set(["distance", "entropy"]);

/** With so many decimals; exact halves go to the even digit, as Python writes them. */
function fixed(value, digits) {
  const halves = value * 2 ** (digits + 1);
  if (Math.abs(value) < 1e12 && Number.isInteger(halves) && halves % 2 !== 0) {
    const below = Math.floor(Math.abs(value) * 10 ** digits);
    return ((Math.sign(value) * (below + (below % 2))) / 10 ** digits).toFixed(digits);
  }
  return value.toFixed(digits);
}

function grouped(value) {
  const [, sign, digits] = /^(-?)(.*)$/.exec(fixed(value, 0));
  return sign + digits.replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Two significant digits of a small number. */
function twoDigits(value) {
  if (Math.abs(value) >= 1e-4) return String(Number(fixed(value, 1 - Math.floor(Math.log10(Math.abs(value))))));
  const [digits, power] = value.toExponential(1).split("e-");
  return `${Number(digits)}e-${power.padStart(2, "0")}`;
}

/** A value for people: rates in per cent with one digit, others with two digits or as many as a small one needs. */
function show(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "rate") return fixed(100 * value, 1);
  const size = Math.abs(value);
  if (COUNTS.has(unit) || size >= 10000) return grouped(value);
  if (FRACTIONS.has(unit) && (size >= 0.0005 || !size)) return fixed(value, 3);
  return size > 0 && size < 0.095 ? twoDigits(value) : fixed(value, 2);
}

/** A difference for people, with its sign. */
function signed(value, unit) {
  const shown = show(value, unit);
  if (value === null || value === undefined || !/[1-9]/.test(shown.split("e")[0])) return shown.replace(/^-/, "");
  return shown.startsWith("-") ? `−${shown.slice(1)}` : `+${shown}`;
}

/** ``[low, high]``, or nothing. */
function interval(low, high, unit, write = show) {
  return low === null || high === null ? "" : `[${write(low, unit)}, ${write(high, unit)}]`;
}

const UNIT_NAMES = { rate: "%", bytes: "bytes", seconds: "s" };

function unitName(unit) {
  return Object.hasOwn(UNIT_NAMES, unit) ? UNIT_NAMES[unit] : unit;
}

const ARROWS = { higher: "↑", lower: "↓" };

function arrow(better) {
  return Object.hasOwn(ARROWS, better) ? ARROWS[better] : "";
}
