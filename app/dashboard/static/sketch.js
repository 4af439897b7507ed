// While the slider moves: band, score and marks on a canvas over the plot, sixty times a second. plotly.js, which takes
// some twenty times as long, draws them when it rests; until then the style sheet hides those of its own.

import { LOWEST_SCORE, theme } from "./chart.js";
import { KINDS, byKind, markSize } from "./kinds.js";

export class Sketch {
  constructor(place, canvas) {
    this.place = place;
    this.canvas = canvas;
    this.outlines = new Map([...KINDS].map(([kind, { outline }]) => [kind, new Path2D(outline)]));
  }

  draw(data, hidden) {
    if (this.canvas.hidden) {
      this.#begin();
    }
    const { xaxis, yaxis, yaxis2 } = this.place._fullLayout;
    const x = data.timestamps.map(scale(xaxis, 1000));
    this.brush.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    this.#within(xaxis, yaxis, () => {
      this.#drawBand(data, x, yaxis);
      this.#drawMarks(data, x, scale(yaxis), hidden);
    });
    this.#within(xaxis, yaxis2, () => this.#drawScore(data, x, yaxis2));
  }

  clear() {
    this.canvas.hidden = true;
  }

  #begin() {
    const sharpness = window.devicePixelRatio;
    this.canvas.hidden = false;
    this.canvas.width = this.canvas.clientWidth * sharpness;
    this.canvas.height = this.canvas.clientHeight * sharpness;
    this.brush = this.canvas.getContext("2d");
    this.brush.scale(sharpness, sharpness);
    this.colors = theme();
  }

  #within(xaxis, yaxis, draw) {
    this.brush.save();
    this.brush.beginPath();
    this.brush.rect(xaxis._offset, yaxis._offset, xaxis._length, yaxis._length);
    this.brush.clip();
    draw();
    this.brush.restore();
  }

  #drawBand(data, x, axis) {
    const y = scale(axis);
    const [top, bottom] = [axis._offset - axis._length, axis._offset + 2 * axis._length];
    const lower = line(x, data.lower.map((bound) => (bound === null ? bottom : y(bound))));
    const upper = line(x, data.upper.map((bound) => (bound === null ? top : y(bound))));
    const band = new Path2D(lower);
    for (let i = x.length - 1; i >= 0; i -= 1) {
      band.lineTo(x[i], data.upper[i] === null ? top : y(data.upper[i]));
    }
    this.#paint(band, this.colors.band);
    this.#trace(lower, this.colors.edge, 0.5);
    this.#trace(upper, this.colors.edge, 0.5);
  }

  #drawScore(data, x, axis) {
    const y = scale(axis);
    const bottom = axis._offset + axis._length;
    const score = line(x, data.score.map((each) => y(Math.log10(Math.max(each, LOWEST_SCORE)))));
    const area = new Path2D(score);
    area.lineTo(x.at(-1), bottom);
    area.lineTo(x[0], bottom);
    this.#paint(area, this.colors.band);
    this.#trace(score, this.colors.value, 0.8);
  }

  #drawMarks(data, x, y, hidden) {
    const kinds = byKind(data);
    const size = markSize(kinds) / 10; // of an outline
    for (const [kind, places] of kinds) {
      for (const i of hidden.has(kind) ? [] : places) {
        this.#mark(kind, x[i], y(data.values[i]), size);
      }
    }
  }

  #mark(kind, x, y, size) {
    const color = this.colors.kinds.get(kind);
    this.brush.save();
    this.brush.translate(x, y);
    this.brush.scale(size, size);
    if (kind === "unnamed") {
      this.#trace(this.outlines.get(kind), color, 1);
    } else {
      this.#trace(this.outlines.get(kind), this.colors.surface, 2);
      this.#paint(this.outlines.get(kind), color);
    }
    this.brush.restore();
  }

  #paint(path, color) {
    this.brush.fillStyle = color;
    this.brush.fill(path);
  }

  #trace(path, color, width) {
    this.brush.strokeStyle = color;
    this.brush.lineWidth = width;
    this.brush.stroke(path);
  }
}

// From the numbers of an axis to places on the canvas.
function scale(axis, unit = 1) {
  const [start, end] = axis.range.map((bound) => axis.r2l(bound));
  const step = axis._length / (end - start);
  return axis._id === "x"
    ? (number) => axis._offset + (number * unit - start) * step
    : (number) => axis._offset + axis._length - (number * unit - start) * step;
}

function line(x, y) {
  const path = new Path2D();
  x.forEach((place, i) => path.lineTo(place, y[i]));
  return path;
}
