// The plot: the whole range first, and whatever one zooms into again in finer detail; at the budget that one chooses
// at once, and as the server judges it when the slider rests.

import { BudgetControl, anomaliesAt, isFor, judge } from "./budget.js";
import { figure, fitHeight } from "./chart.js";
import { KindLegend, byKind } from "./kinds.js";
import { Sketch } from "./sketch.js";
import { list } from "./strongest.js";

const WAIT_MS = 150;
const REST_MS = 300;
const AROUND_POINTS = 60;
const COLUMNS = ["timestamps", "values", "anomaly", "score", "expected", "lower", "upper", "severity", "p_value", "kind"];
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false, showTips: false };

const place = document.getElementById("plot");
const caption = document.getElementById("caption");
const loading = document.getElementById("loading");
const failure = document.getElementById("failure");

let overview = null; // the whole range, reduced
let detail = null; // a stretch of it, and in `range` which
let view = null; // the range on the screen, in Unix seconds
let height = null; // the values on the screen when the user chose them
let timer = 0;
let frame = 0;
let pending = null;

const legend = new KindLegend(document.getElementById("kinds"), draw);
const sketch = new Sketch(place, document.getElementById("sketch"));
const budget = new BudgetControl(document.getElementById("budget"), rejudge);

async function fetchData(range) {
  pending?.abort();
  pending = new AbortController();
  const address = new URL(place.dataset.url, document.baseURI);
  if (range !== null) {
    address.searchParams.set("start", Math.max(range[0], 0).toFixed(6));
    address.searchParams.set("end", Math.max(range[1], 0).toFixed(6));
  }
  if (budget.asked !== null) {
    address.searchParams.set("false_alarm_rate", budget.asked);
  }
  const response = await fetch(address, { signal: pending.signal, headers: { Accept: "application/json" } });
  if (!response.ok) {
    const problem = await response.json().catch(() => null);
    throw new Error(problem?.detail ?? `The server answered ${response.status}.`);
  }
  return response.json();
}

// Runs `work`; what goes wrong with it stands on the page, with a button to try again.
async function attempt(work) {
  failure.hidden = true;
  place.dataset.state = "loading";
  try {
    await work();
    place.dataset.state = "ready";
  } catch (error) {
    if (error.name === "AbortError") {
      return; // the next one is under way
    }
    place.dataset.state = "failed";
    loading.hidden = true;
    failure.querySelector("p").textContent = `The data could not be loaded. ${error.message}`;
    failure.querySelector("button").onclick = () => attempt(work);
    failure.hidden = false;
    if (overview !== null) {
      draw();
    }
  }
}

async function open() {
  loading.hidden = false;
  const [data] = await Promise.all([fetchData(null), plotlyLoaded()]);
  overview = data;
  view = wholeRange();
  budget.offer(overview);
  await draw();
  describe();
  loading.hidden = true;
  place.on("plotly_relayout", onRelayout);
  place.on("plotly_doubleclick", () => show(wholeRange()));
  document.getElementById("buttons").hidden = false;
}

function plotlyLoaded() {
  if (window.Plotly) {
    return Promise.resolve();
  }
  const script = document.querySelector('script[src$="plotly.min.js"]');
  return new Promise((resolve, reject) => {
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error("plotly.js is missing: reload the page.")));
  });
}

function wholeRange() {
  const first = overview.timestamps[0];
  const last = overview.timestamps.at(-1);
  const margin = (last - first) * 0.01;
  return [first - margin, last + margin];
}

// The detail with the overview on both sides, so that lines leave the screen where they should.
function merged() {
  const around = judge(overview, budget.rate);
  if (detail === null) {
    return around;
  }
  const inside = judge(detail, budget.rate);
  const [start, end] = detail.range;
  const before = overview.timestamps.findLastIndex((time) => time < start) + 1;
  const found = overview.timestamps.findIndex((time) => time > end);
  const after = found < 0 ? overview.timestamps.length : found;
  const join = (name) => [name, [...around[name].slice(0, before), ...inside[name], ...around[name].slice(after)]];
  return Object.fromEntries(COLUMNS.map(join));
}

async function draw() {
  cancelAnimationFrame(frame);
  const data = merged();
  const { traces, layout } = figure(data, view, height ?? fitHeight(data, view), legend.hidden);
  await Plotly.react(place, traces, layout, CONFIG);
  sketch.clear();
  tell(data);
}

// Another budget: what is here follows at once, in the next frame, and the server is asked when the slider rests.
function rejudge() {
  place.dataset.state = "judging";
  pending?.abort(); // what it would draw is out of date, and drawing takes time
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    const data = merged();
    sketch.draw(data, legend.hidden);
    tell(data);
  });
  clearTimeout(timer);
  timer = setTimeout(() => attempt(refine), REST_MS);
}

// What is said in words and numbers of the points that are drawn.
function tell(data) {
  const places = byKind(data, view);
  const shown = [...places].flatMap(([kind, ofKind]) => (legend.hidden.has(kind) ? [] : ofKind));
  legend.count(places);
  budget.count(anomaliesAt(overview, budget.rate), overview.judged);
  list(document.getElementById("strongest"), data, shown, overview.interval_s, zoomTo);
}

// Show a range at once with what is here, and soon in all the detail that the screen can take.
async function show(range) {
  look(range, null);
  await draw();
}

function look(range, levels) {
  view = within(range, wholeRange());
  height = levels;
  place.dataset.state = "loading";
  clearTimeout(timer);
  timer = setTimeout(() => attempt(refine), WAIT_MS);
}

async function refine() {
  const range = [...view];
  const whole = wholeRange();
  if (!isFor(overview, budget.rate)) {
    overview = await fetchData(null);
  }
  if (overview.method === "all" || (range[0] <= whole[0] && range[1] >= whole[1])) {
    pending?.abort();
    detail = null;
  } else if (!isHere(range) || !isFor(detail, budget.rate)) {
    detail = { ...(await fetchData(range)), range };
  }
  await draw();
  describe();
  budget.remember();
}

function isHere([start, end]) {
  return detail?.method === "all" && detail.range[0] <= start && detail.range[1] >= end;
}

function within([start, end], [first, last]) {
  const length = Math.min(end - start, last - first);
  const from = Math.min(Math.max(start, first), last - length);
  return [from, from + length];
}

function onRelayout(change) {
  if (change["xaxis.autorange"]) {
    show(wholeRange());
    return;
  }
  const { xaxis, yaxis } = place.layout;
  const levels = "yaxis.range[0]" in change || "yaxis.range" in change ? yaxis.range.map(Number) : height;
  if (Object.keys(change).some((key) => key.startsWith("xaxis.range"))) {
    look(xaxis.range.map(toSeconds), levels); // plotly.js shows it already
  } else {
    height = levels;
  }
}

// plotly.js gives back milliseconds, or UTC as "2024-01-31 12:00:00.1234", cut off where zeros follow.
function toSeconds(date) {
  if (typeof date === "number") {
    return date / 1000;
  }
  const [day, time = "00:00"] = date.split(" ");
  const [whole, fraction = "0"] = time.split(".");
  return Date.parse(`${day}T${whole}Z`) / 1000 + Number(`0.${fraction}`);
}

function move(how) {
  const [start, end] = view;
  const step = (end - start) / 4;
  const moves = {
    earlier: [start - step, end - step],
    later: [start + step, end + step],
    out: [start - 2 * step, end + 2 * step],
    in: [start + step, end - step],
    whole: wholeRange(),
  };
  show(moves[how]);
}

function describe() {
  const shown = detail ?? overview;
  const isWhole = view[0] <= overview.timestamps[0] && view[1] >= overview.timestamps.at(-1);
  const where = isWhole ? "" : " in this range";
  const inView = shown.method === "all" ? indicesInView(shown) : shown.timestamps.map((_, i) => i);
  const count = inView.length.toLocaleString("en");
  const marked = inView.filter((i) => shown.anomaly[i]).length;
  const anomalies = shown.method === "all" ? marked : shown.anomalies;
  const method =
    shown.method === "all"
      ? `All ${count} points${where}.`
      : `${count} of ${shown.points.toLocaleString("en")} points${where}, chosen by min-max: ` +
        "each stretch keeps its lowest, its highest and its most anomalous point, so no spike is lost. Zoom in for all of them.";
  const judged =
    shown.judged === shown.points
      ? ""
      : ` The last ${shown.judged.toLocaleString("en")} are judged, as this detector takes its time. Zoom in for others:`;
  const strongest = marked === anomalies ? "" : `, the ${marked.toLocaleString("en")} strongest of them marked`;
  const scale = fitHeight(shown, view) ? "" : " The values are too large to draw; the list and the JSON have them.";
  caption.textContent = `${method}${judged} ${anomalies.toLocaleString("en")} outside the normal band${strongest}.${scale}`;
}

function indicesInView({ timestamps }) {
  return timestamps.flatMap((time, i) => (time >= view[0] && time <= view[1] ? [i] : []));
}

function zoomTo(time) {
  const [first, last] = wholeRange();
  const reach = ((last - first) / overview.points) * AROUND_POINTS;
  show([time - reach, time + reach]);
  place.scrollIntoView({ block: "nearest" });
}

document.getElementById("buttons").addEventListener("click", (event) => {
  if (event.target.dataset.move) {
    move(event.target.dataset.move);
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => overview && draw());
attempt(open);
