// Numbers, times and shares as people read them.

const WEEK_S = 604_800;
const YEAR_S = 31_557_600;

const dates = new Intl.DateTimeFormat("en-CA", {
  timeZone: "UTC",
  dateStyle: "short",
  timeStyle: "medium",
  hourCycle: "h23",
});
const numbers = new Map([2, 3, 4, 6].map((digits) => [digits, numberFormat(digits)])); // making one takes its time

function numberFormat(digits) {
  return new Intl.NumberFormat("en", { maximumSignificantDigits: digits });
}

export function formatNumber(number, digits = 6) {
  const size = Math.abs(number);
  const isPlain = size === 0 || (size >= 1e-4 && size < 1e12);
  return isPlain ? numbers.get(digits).format(number) : number.toExponential(4);
}

export function formatTime(seconds) {
  const fraction = seconds % 1 ? (seconds % 1).toFixed(6).slice(1).replace(/0+$/, "") : "";
  return dates.format(seconds * 1000).replace(",", "") + (fraction.length > 1 ? fraction : "");
}

export function formatBand(lower, upper) {
  if (lower === null) {
    return upper === null ? "open" : `up to ${formatNumber(upper)}`;
  }
  return upper === null ? `from ${formatNumber(lower)}` : `${formatNumber(lower)} … ${formatNumber(upper)}`;
}

export function formatRate(rate) {
  const points = 1 / rate;
  return `1 in ${formatNumber(points, points < 100 ? 2 : 3)} normal points`;
}

// How many false alarms a rate is, in a time in which there is one or more; nothing where the sampling is unknown.
export function formatAlarms(rate, interval) {
  if (!interval) {
    return "";
  }
  const [span, name] = [[WEEK_S, "week"], [YEAR_S, "year"]].find(([s]) => (rate * s) / interval >= 1) ?? [0, ""];
  const number = formatNumber((rate * span) / interval, 2);
  return span ? `about ${number} false alarm${number === "1" ? "" : "s"} a ${name}` : "less than one false alarm a year";
}
