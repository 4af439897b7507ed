// The alarm budget: what is flagged at another false alarm rate, and the slider that chooses it.

import { formatAlarms, formatRate } from "./format.js";

const NAME = "false_alarm_rate";

// The place of a rate among the budgets of a document, or of the next stricter one.
function placeOf({ budgets }, rate) {
  return Math.max(budgets.false_alarm_rate.findLastIndex((other) => other <= rate), 0);
}

export function isFor(data, rate) {
  return data.budgets.chosen === placeOf(data, rate);
}

export function anomaliesAt(data, rate) {
  return data.budgets.anomalies[placeOf(data, rate)];
}

// The columns of a document as the model would judge its points at another rate; kinds stay where they are known.
export function judge(data, rate) {
  if (isFor(data, rate)) {
    return data;
  }
  const place = placeOf(data, rate);
  const { min_dev_from_expected: least, min_rel_dev_from_expected: leastShare } = data.budgets;
  const [below, above] = [data.budgets.below[place], data.budgets.above[place]];
  const n = data.values.length;
  const judged = { ...data, anomaly: Array(n), score: Array(n), lower: Array(n), upper: Array(n), severity: Array(n) };
  for (let i = 0; i < n; i += 1) {
    const expected = data.expected[i];
    const off = data.values[i] - expected;
    const floor = Math.max(least, leastShare * Math.abs(expected));
    const [down, up] = [width(below, data.scale[i], floor), width(above, data.scale[i], floor)];
    const score = scoreOf(Math.abs(off), off > 0 ? up : down);
    judged.lower[i] = finite(expected - down);
    judged.upper[i] = finite(expected + up);
    judged.score[i] = score;
    judged.anomaly[i] = score > 1;
    judged.severity[i] = 1 - 1 / Math.max(score, 1);
  }
  return judged;
}

function width(threshold, scale, floor) {
  return threshold === null || scale === null ? Infinity : Math.max(threshold * scale, floor);
}

function scoreOf(distance, reach) {
  return distance === 0 ? 0 : Math.min(distance / reach, Number.MAX_VALUE);
}

function finite(bound) {
  return Number.isFinite(bound) ? bound : null;
}

// The rate that the address of the page asks for; null for none that a model takes.
function rateOfAddress() {
  const rate = Number(new URLSearchParams(location.hash.slice(1)).get(NAME));
  return rate > 0 && rate <= 0.5 ? rate : null;
}

// The slider with what it says, `rate` is where it stands; `asked` is that too, null for the model's own. `onMove` is
// called for each rate that it comes by.
export class BudgetControl {
  constructor(root, onMove) {
    this.root = root;
    this.onMove = onMove;
    this.asked = rateOfAddress();
    this.slider = root.querySelector("input");
    this.reset = root.querySelector("[data-reset]");
    this.slider.addEventListener("input", () => this.#choose(Number(this.slider.value)));
    this.reset.addEventListener("click", () => this.#choose(this.own));
  }

  offer(data) {
    const { false_alarm_rate: rates, own, chosen } = data.budgets;
    Object.assign(this, { rates, own, interval: data.interval_s });
    this.slider.max = rates.length - 1;
    this.slider.value = chosen;
    this.root.style.setProperty("--own", own / (rates.length - 1));
    this.root.hidden = false;
    this.#say(chosen);
  }

  #choose(place) {
    this.slider.value = place;
    this.#say(place);
    this.onMove();
  }

  // What a request must add to be judged so; nothing at the model's own rate.
  get #query() {
    return this.asked === null ? "" : `${NAME}=${this.asked}`;
  }

  #say(place) {
    this.rate = this.rates[place];
    this.asked = place === this.own ? null : this.rate;
    const rate = formatRate(this.rate);
    const alarms = formatAlarms(this.rate, this.interval);
    const copy = this.root.querySelector("[data-copy]");
    const request = copy.dataset.path + (this.#query && `&${this.#query}`);
    this.root.querySelector("strong").textContent = rate;
    this.root.querySelector("[data-alarms]").textContent = alarms;
    this.slider.setAttribute("aria-valuetext", alarms ? `${rate}, ${alarms}` : rate);
    this.reset.disabled = place === this.own;
    copy.dataset.copy = new URL(request, document.baseURI);
    this.root.querySelector("code").textContent = `POST /${request}`;
  }

  // Puts the rate into the address of the page. Not while the slider moves: browsers take a few such changes a second.
  remember() {
    history.replaceState(history.state, "", location.pathname + location.search + (this.#query && `#${this.#query}`));
  }

  count(flagged, points) {
    this.root.querySelector("[data-flagged]").textContent =
      `${flagged.toLocaleString("en")} of ${points.toLocaleString("en")} points flagged`;
  }
}
