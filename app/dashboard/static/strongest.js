// The table of the strongest anomalies in view.

import { formatBand, formatNumber, formatTime } from "./format.js";
import { KINDS, icon, kindOf } from "./kinds.js";

const LISTED = 8;
const NEXT_TO = 1.5; // intervals

// `places`: of the anomalies in `data` to choose from, `interval`: of its points, in seconds. `zoomTo` is called with
// the time of the one that is clicked.
export function list(section, data, places, interval, zoomTo) {
  const strongest = events(data, places, interval).sort((a, b) => data.score[b.top] - data.score[a.top]);
  const rows = strongest.slice(0, LISTED).map((event) => row(data, event, zoomTo));
  section.querySelector("tbody").replaceChildren(...rows);
  section.hidden = rows.length === 0;
}

// Anomalies one after the other are one event, and the strongest of them its `top`.
function events(data, places, interval) {
  const found = [];
  for (const i of places.toSorted((a, b) => a - b)) {
    const event = found.at(-1);
    if (event && data.timestamps[i] - data.timestamps[event.last] <= interval * NEXT_TO) {
      event.points += 1;
      event.last = i;
      event.top = data.score[i] > data.score[event.top] ? i : event.top;
    } else {
      found.push({ top: i, last: i, points: 1 });
    }
  }
  return found;
}

function row(data, { top: i, points }, zoomTo) {
  const line = document.createElement("tr");
  const kind = kindOf(data, i);
  line.append(
    time(data.timestamps[i], zoomTo),
    cell("kinds", icon(kind), label(kind)),
    cell("number wide", points.toLocaleString("en")),
    cell("number", formatNumber(data.values[i])),
    cell("number wide", formatNumber(data.expected[i])),
    cell("number wide", formatBand(data.lower[i], data.upper[i])),
    cell("number", formatNumber(data.score[i], 4)),
    cell("number wide", formatNumber(data.severity[i], 3)),
  );
  return line;
}

function time(seconds, zoomTo) {
  const head = document.createElement("th");
  const button = document.createElement("button");
  head.scope = "row";
  button.type = "button";
  button.className = "link";
  button.title = "Zoom in on it";
  button.textContent = formatTime(seconds);
  button.addEventListener("click", () => zoomTo(seconds));
  head.append(button);
  return head;
}

function label(kind) {
  const words = document.createElement("span");
  words.textContent = KINDS.get(kind).label;
  return words;
}

function cell(kind, ...content) {
  const made = document.createElement("td");
  made.className = kind;
  made.append(...content);
  return made;
}
