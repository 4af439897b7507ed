// The list answers while one types, and the figures of /healthcheck join it.

import { offerCopies } from "./page.js";

const WAIT_MS = 150;
const field = document.getElementById("search");
let timer = 0;
let pending = null;

async function search() {
  pending?.abort();
  pending = new AbortController();
  const text = field.value.trim();
  const address = text ? `./?${new URLSearchParams({ search: text })}` : "./";
  try {
    const response = await fetch(address, { signal: pending.signal, headers: { Accept: "text/html" } });
    const found = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("results");
    if (found === null) {
      location.assign(address); // the page of an error
      return;
    }
    document.getElementById("results").replaceWith(found);
    offerCopies(found);
    history.replaceState(null, "", address);
  } catch (error) {
    if (error.name !== "AbortError") {
      location.assign(address);
    }
  }
}

async function showHealth() {
  const figures = document.getElementById("health");
  const response = await fetch(figures.dataset.url).catch(() => null);
  if (!response?.ok) {
    return;
  }
  const health = await response.json();
  for (const place of figures.querySelectorAll("[data-figure]")) {
    const { avg, p95 } = health[place.dataset.figure];
    place.parentElement.hidden = p95 === 0;
    place.textContent = `${brief(avg)} / ${brief(p95)} ms`;
  }
}

function brief(latency) {
  return latency.toLocaleString("en", { maximumSignificantDigits: 3 });
}

field.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, WAIT_MS);
});
showHealth();
