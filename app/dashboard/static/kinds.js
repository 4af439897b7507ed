// What kinds of anomalies there are, how each is marked, and the legend that counts, hides and shows them.

// Outlines are those of plotly.js's symbols, around 0 0 and five units wide either way. The colour of `level_shift` is
// --kind-level_shift in the style sheet.
export const KINDS = new Map(
  [
    ["spike", "triangle-up", "M0-5 5 4H-5Z"],
    ["dip", "triangle-down", "M0 5 5-4H-5Z"],
    ["level_shift", "square", "M-4-4H4V4H-4Z"],
    ["trend_change", "triangle-right", "M5 0-4 5V-5Z"],
    ["variance_change", "hourglass", "M-4.5-5H4.5L-4.5 5H4.5Z"],
    ["flatline", "diamond-wide", "M0-3.4 5.6 0 0 3.4-5.6 0Z"],
    ["missing_season", "x", "M0-2.4 2.4-4.8 4.8-2.4 2.4 0 4.8 2.4 2.4 4.8 0 2.4-2.4 4.8-4.8 2.4-2.4 0-4.8-2.4-2.4-4.8Z"],
    ["shape", "star", "M0-5.5 1.3-1.8 5.3-1.7 2.1.7 3.2 4.5 0 2.2-3.2 4.5-2.1.7-5.3-1.7-1.3-1.8Z"],
    ["unusual_time", "circle", "M-4.5 0A4.5 4.5 0 1 1 4.5 0 4.5 4.5 0 1 1-4.5 0Z"],
    ["unnamed", "circle-open", "M-4 0A4 4 0 1 1 4 0 4 4 0 1 1-4 0Z"],
  ].map(([kind, symbol, outline]) => [kind, { symbol, outline, label: kind.replace("_", " ") }]),
);

const UNNAMED = "Flagged at this budget; the server is asked for the kind when the slider rests";
const SVG = "http://www.w3.org/2000/svg";

export function kindOf(data, i) {
  return data.kind[i] ?? "unnamed";
}

// The places of the anomalies of each kind that are within the view.
export function byKind(data, [start, end] = [-Infinity, Infinity]) {
  const places = new Map([...KINDS.keys()].map((kind) => [kind, []]));
  data.anomaly.forEach((isAnomaly, i) => {
    if (isAnomaly && data.timestamps[i] >= start && data.timestamps[i] <= end) {
      places.get(kindOf(data, i)).push(i);
    }
  });
  return places;
}

// How wide so many marks are, in pixels: smaller where they would hide one another.
export function markSize(places) {
  const marks = [...places.values()].reduce((sum, ofKind) => sum + ofKind.length, 0);
  return Math.min(Math.max(10 * Math.sqrt(200 / (marks + 1)), 5), 10);
}

export function icon(kind) {
  const picture = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  picture.setAttribute("viewBox", "-7 -7 14 14");
  picture.setAttribute("aria-hidden", "true");
  picture.classList.add("kind", kind);
  path.setAttribute("d", KINDS.get(kind).outline);
  picture.append(path);
  return picture;
}

// A button for each kind that is there, pressed while its points are shown; `onChange` is called with those hidden.
export class KindLegend {
  constructor(list, onChange) {
    this.list = list;
    this.onChange = onChange;
    this.hidden = new Set();
    this.entries = new Map([...KINDS.keys()].map((kind) => [kind, this.#entry(kind)]));
    list.append(...[...this.entries.values()].map(({ item }) => item));
  }

  #entry(kind) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const count = document.createElement("span");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.title = kind === "unnamed" ? UNNAMED : `Hide or show each ${KINDS.get(kind).label}`;
    button.append(icon(kind), KINDS.get(kind).label, " ", count);
    button.addEventListener("click", () => this.#toggle(kind, button));
    item.append(button);
    return { item, count };
  }

  #toggle(kind, button) {
    const isHidden = !this.hidden.delete(kind);
    if (isHidden) {
      this.hidden.add(kind);
    }
    button.setAttribute("aria-pressed", String(!isHidden));
    this.onChange();
  }

  count(places) {
    for (const [kind, { item, count }] of this.entries) {
      const number = places.get(kind).length;
      item.hidden = number === 0 && !this.hidden.has(kind);
      count.textContent = number.toLocaleString("en");
    }
  }
}
