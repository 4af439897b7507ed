// The fit report: why this detector, what is odd about the training data, and what will be found. It may take the server
// seconds to make, so it is asked for when somebody comes near to it, and after the plot.

import { formatAlarms, formatNumber, formatRate } from "./format.js";

const NEAR = "300px";
const SHOWN = 3; // places of each finding
const UNITS_S = [["week", 604_800], ["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];
const NATURES = { integers: "All values are integers.", binary: "There are only two values.", constant: "All values are equal." };
const MOST_FLAGGED = 0.1; // share of the points
const LEVELS = [0.01, 0.34, 0.5, 0.75, 1]; // of shares that a shade begins with

const section = document.getElementById("report");
const parts = Object.fromEntries([...section.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));

async function open() {
  section.dataset.state = "loading";
  parts.failure.hidden = true;
  parts.waiting.hidden = false;
  try {
    const version = await fetchVersion();
    if (version.report === null) {
      throw new Error(version.no_report_because);
    }
    parts.report.replaceChildren(...describe(version));
    parts.report.hidden = false;
    section.dataset.state = "ready";
  } catch (error) {
    parts.failure.querySelector("p").textContent = `There is no report. ${error.message}`;
    parts.failure.querySelector("button").onclick = open;
    parts.failure.hidden = false;
    section.dataset.state = "failed";
  }
  parts.waiting.hidden = true;
}

async function fetchVersion() {
  const address = new URL(section.dataset.url, document.baseURI);
  const response = await fetch(address, { headers: { Accept: "application/json" } });
  if (!response.ok) {
    const problem = await response.json().catch(() => null);
    throw new Error(problem?.detail ?? `The server answered ${response.status}.`);
  }
  return response.json();
}

function describe({ detector, report }) {
  return [
    node("div", {},
      ...part("What to expect", expectations(report)),
      ...part("What it finds", detectability(detector, report.detectability))),
    node("div", {},
      ...part("Why this detector", why(detector, report.choice)),
      ...part("Training data", data(report)),
      ...part("Set aside", setAside(report.set_aside))),
  ];
}

function part(title, children) {
  return children.length === 0 ? [] : [node("div", { className: "part" }, node("h3", {}, title), ...children)];
}

// ---- what to expect and why ------------------------------------------------------------------------------------

function expectations(report) {
  const alarms = formatAlarms(report.false_alarm_rate, report.quality.interval_s);
  const points = report.context_points;
  const needs = points === 0 ? "Judges each point by itself." : `Judges a point by the ${count(points, "point")} before it.`;
  return [node("p", {}, node("strong", {}, capital(alarms || formatRate(report.false_alarm_rate))),
    alarms ? ` (${formatRate(report.false_alarm_rate)}). ` : ". ", needs)];
}

function why(detector, choice) {
  if (choice === null) {
    return [node("p", {}, node("strong", {}, detector), ", as the request has it or by default.")];
  }
  const children = [node("p", {}, choice.reason)];
  if (choice.candidates.length > 0) {
    const rows = choice.candidates.map((each) => [each.detector, percent(each.recall), percent(each.false_alarm_rate),
      `${formatNumber(each.seconds, 2)} s`]);
    children.push(table("Detectors that were tried, the best first",
      ["Detector", "Found", "False alarms", "Took"], rows, detector));
  }
  return children;
}

function table(caption, titles, rows, marked) {
  const head = titles.map((title, i) => node("th", { scope: "col", className: i ? "number" : "" }, title));
  const body = rows.map(([name, ...cells]) => node("tr", { className: name === marked ? "taken" : "" },
    node("th", { scope: "row" }, name, name === marked ? node("span", { className: "chip latest" }, "taken") : ""),
    ...cells.map((cell) => node("td", { className: "number" }, cell))));
  return node("div", { className: "table" }, node("table", {}, node("caption", { className: "unseen" }, caption),
    node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...body)));
}

// ---- the training data -----------------------------------------------------------------------------------------

function data(report) {
  const { quality } = report;
  const notes = [rhythm(report), ...timeNotes(quality), ...valueNotes(quality)];
  return [node("ul", { className: "notes" }, ...notes)];
}

function rhythm({ quality, period }) {
  const every = quality.interval_s === null ? "" : `, one every ${duration(quality.interval_s)}`;
  const repeats = period === null ? "" : `; they repeat themselves every ${duration(period.seconds)}`;
  return sound(`${count(quality.points, "point")}${every}${repeats}.`);
}

function timeNotes(quality) {
  const { gaps } = quality;
  const notes = [];
  if (gaps.count > 0) {
    const missing = `${count(gaps.missing_points, "point")} missing (${percent(gaps.missing_share)})`;
    const lines = gaps.first.map((gap) => `${between(gap)}: ${count(gap.missing_points, "point")}`);
    const longest = gaps.count > 1 ? `, the longest ${duration(gaps.longest_s)}` : "";
    notes.push(odd(`${count(gaps.count, "gap")}, ${missing}${longest}.`, lines, gaps.count));
  }
  if (!quality.is_regular) {
    notes.push(odd(`Sampled irregularly: ${percent(quality.off_time_share)} of the intervals are off the usual one.`));
  }
  if (quality.bunched_points > 0) {
    notes.push(odd(`${count(quality.bunched_points, "point")} right behind another one: sent twice?`));
  }
  return notes.length ? notes : [sound("Sampled regularly, without a gap.")];
}

function valueNotes(quality) {
  const { stuck, outliers } = quality;
  const notes = quality.unit_jumps.map((jump) =>
    odd(`Values look multiplied by about ${formatNumber(jump.factor, 2)}: did the unit change?`, [between(jump)]));
  if (stuck.count > 0) {
    const lines = stuck.longest.map((run) => `${between(run)}: ${count(run.points, "time")} ${formatNumber(run.value)}`);
    notes.push(odd(`${count(stuck.count, "stretch", "stretches")} of equal values, ${count(stuck.points, "point")}.`, lines,
      stuck.count));
  }
  if (outliers.count > 0) {
    const lines = outliers.worst.map((each) => `${time(each.timestamp)}: ${formatNumber(each.value)}`);
    notes.push(odd(`${count(outliers.count, "outlier")} beyond doubt.`, lines, outliers.count));
  }
  if (notes.length === 0) {
    notes.push(sound("No outliers, no stuck values, no change of unit."));
  }
  return quality.nature in NATURES ? [...notes, sound(NATURES[quality.nature])] : notes;
}

function sound(text) {
  return node("li", {}, text);
}

// A note that is worth a look; `lines` are the first of `all` places of it.
function odd(text, lines = [], all = lines.length) {
  return node("li", { className: "odd" }, node("span", { className: "unseen" }, "Worth a look: "), text, ...places(lines, all));
}

function places(lines, all) {
  const shown = lines.slice(0, SHOWN);
  const more = all > shown.length ? [`and ${formatNumber(all - shown.length)} more`] : [];
  const items = [...shown, ...more].map((line) => node("li", {}, line));
  return items.length ? [node("ul", { className: "places" }, ...items)] : [];
}

function setAside(stretches) {
  if (stretches.count === 0) {
    return [];
  }
  const text = `Anomalous beyond doubt, so the model was not fitted to ${stretches.count === 1 ? "it" : "them"}:`;
  return [node("p", {}, node("strong", {}, count(stretches.count, "stretch", "stretches")), `. ${text}`),
    ...places(stretches.first.map(between), stretches.count)];
}

// ---- what it finds ---------------------------------------------------------------------------------------------

function detectability(detector, trial) {
  if (trial === null) {
    return [node("p", { className: "quietly" }, "A history of 100 points or more is put to the test here.")];
  }
  const sizes = trial.sizes.map((size) => node("th", { scope: "col" }, `${formatNumber(size)} σ`));
  const kinds = trial.kinds.filter((row) => row.tried.some((tried) => tried > 0));
  const heat = node("table", { className: "heat" },
    node("caption", { className: "unseen" }, "Share of injected anomalies that was found, by kind and size"),
    node("thead", {}, node("tr", {}, node("th", { scope: "col" }, "Kind"), ...sizes)),
    node("tbody", {}, ...kinds.map((row) => heatRow(row, trial.sizes))));
  const alarms = `${formatNumber(trial.flagged_points)} of ${count(trial.points, "point")}`;
  const doubt = trial.flagged_points > MOST_FLAGGED * trial.points ? ": so many that the shares tell little" : "";
  return [node("p", { className: "quietly" }, "Share of the anomalies injected into the last fifth that "
    + `${detector} finds when it is fitted to what came before. σ is the standard deviation of the noise.`),
    node("div", { className: "table" }, heat),
    node("p", { className: "quietly" }, `Without any injected, it flagged ${alarms} there${doubt}.`)];
}

function heatRow({ kind, recall, tried }, sizes) {
  const sizeless = tried.slice(1).every((each) => each === 0); // such as a flatline, which has none
  const cells = sizeless ? [heatCell(recall[0], tried[0], sizes.length)] : recall.map((share, i) => heatCell(share, tried[i], 1));
  return node("tr", {}, node("th", { scope: "row" }, kind.replaceAll("_", " ")), ...cells);
}

function heatCell(share, tried, columns) {
  if (share === null) {
    return node("td", { colSpan: columns, title: "There was no room to try one." }, "–");
  }
  const cell = node("td", { colSpan: columns, title: `${Math.round(share * tried)} of ${tried} found` }, percent(share));
  cell.dataset.level = LEVELS.filter((least) => share >= least).length;
  return cell;
}

// ---- words -----------------------------------------------------------------------------------------------------

function node(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function count(number, one, many = `${one}s`) {
  return `${formatNumber(number)} ${number === 1 ? one : many}`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function percent(share) {
  return `${share < 0.1 ? formatNumber(share * 100, 2) : Math.round(share * 100)} %`;
}

// In the largest unit of which there is one or more.
function duration(seconds) {
  const [unit, size] = UNITS_S.find(([, length]) => seconds >= length) ?? ["second", 1];
  const number = formatNumber(seconds / size, 3);
  return number === "1" ? unit : `${number} ${unit}s`;
}

function between({ first_timestamp, last_timestamp }) {
  const [first, last] = [time(first_timestamp), time(last_timestamp)];
  if (first === last) {
    return first;
  }
  return first.slice(0, 10) === last.slice(0, 10) ? `${first} – ${last.slice(11)}` : `${first} – ${last}`;
}

function time(text) {
  return text.replace("T", " ").replace("Z", "");
}

// ---- when ------------------------------------------------------------------------------------------------------

function plotDrawn() {
  const plot = document.getElementById("plot");
  return new Promise((resolve) => {
    const look = () => plot.dataset.state !== "loading" && resolve();
    new MutationObserver(look).observe(plot, { attributeFilter: ["data-state"] });
    look();
  });
}

parts.waiting.hidden = false;
new IntersectionObserver(async (seen, observer) => {
  if (seen.some((each) => each.isIntersecting)) {
    observer.disconnect();
    await plotDrawn();
    open();
  }
}, { rootMargin: NEAR }).observe(section);
