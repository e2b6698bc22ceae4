"use strict";
// The data of the page, and what of them is shown.

const TYPES = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array, float32: Float32Array };
const NO_VALUE = 65535, MAX_CODE = 65534;
let contents, arrays, numSettings;
const state = { x: 0, y: 1, fixed: [], quantity: 0, budget: "end", amount: 0, chosen: 0, cursor: 0, brushes: new Map() };

async function unpack() {
  const text = atob(document.getElementById("data").textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  contents = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  arrays = {};
  for (const [name, { type, offset, length: size }] of Object.entries(contents.arrays))
    arrays[name] = new TYPES[type](buffer, 4 + length + offset, size);
  numSettings = arrays.num_seeds.length;
}

const quantity = () => contents.quantities[state.quantity];
const budget = () => contents.frames.find((frame) => frame.name === state.budget);
const hasEnd = () => `${quantity().name}_final_mean` in arrays;
const hasCurves = () => `${quantity().name}_recorded_mean` in arrays;
const placesOf = (axis) => arrays[`axis_${axis.name}`];

function decoded(code, [low, high, isLog]) {
  if (code === NO_VALUE) return NaN;
  const value = low + (code * (high - low)) / MAX_CODE;
  return isLog ? Math.exp(value) : value;
}

// What is shown of each setting: mean, half width of its interval, and how many of its runs have diverged.
let shown = null;
function frame() {
  const key = [state.quantity, state.budget, state.amount].join();
  if (shown && shown.key === key) return shown;
  const name = quantity().name, limits = quantity().limits;
  if (state.budget === "end") {
    shown = { mean: arrays[`${name}_final_mean`], half: arrays[`${name}_final_half_width`], diverged: arrays.num_diverged, limits: limits.end };
  } else {
    const places = budget().places[state.amount], count = contents.steps.length;
    const mean = new Float32Array(numSettings).fill(NaN), half = new Float32Array(numSettings).fill(NaN);
    const diverged = new Uint32Array(numSettings);
    const means = arrays[`${name}_recorded_mean`], halves = arrays[`${name}_recorded_half_width`], scales = quantity().scales;
    for (let s = 0; s < numSettings; s++) {
      const place = places[places.length === 1 ? 0 : arrays.size[s]];
      if (place < 0) continue;
      const i = s * count + place;
      mean[s] = decoded(means[i], scales.recorded_mean);
      if (halves) half[s] = decoded(halves[i], scales.recorded_half_width);
      diverged[s] = arrays.recorded_diverged[i];
    }
    shown = { mean, half, diverged, limits: limits[state.budget][state.amount] };
  }
  shown.key = key;
  shown.shade = shades(shown);
  return shown;
}

// The colour of each setting as 0xAABBGGRR, 0 for none.
function shades({ mean, diverged, limits }) {
  const table = contents.colors.map(packedColor), found = new Uint32Array(numSettings), palette = theme();
  for (let s = 0; s < numSettings; s++) {
    if (diverged[s] > 0) found[s] = palette.diverged;
    else if (isPruned(s) && state.budget === "end") found[s] = palette.pruned;
    else if (!Number.isNaN(mean[s]) && limits) {
      const place = fraction(mean[s], limits), good = quantity().largest ? place : 1 - place;
      found[s] = good < -1e-6 ? 0xff000000 : table[Math.max(0, Math.min(255, Math.round(good * 255)))];
    }
  }
  return found;
}

function fraction(value, [low, high, isLog]) {
  if (high <= low) return 0.5;
  return isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
}

function packedColor(hex) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

// Colours of the page, light or dark.
function theme() {
  const style = getComputedStyle(document.documentElement), css = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: css("text"), soft: css("soft"), line: css("line"), accent: css("accent"), card: css("card"),
    diverged: packedColor(css("diverged")), pruned: packedColor(css("pruned")), isDark: matchMedia("(prefers-color-scheme: dark)").matches,
  };
}

const standing = (s) => contents.standings[arrays.standing[s]];
const COMPARED = { best: "best on validation", "as good": "as good as the best", worse: "worse than the best", unclear: "not known to be worse than the best, nor as good" };
const isPruned = (s) => arrays.pruned_step !== undefined && arrays.pruned_step[s] >= 0;

// Which settings the brushes select: 1 for each that is.
let selected = null;
function select() {
  selected = new Uint8Array(numSettings).fill(1);
  for (const [column, [low, high]] of state.brushes) {
    const positions = positionsOf(column);
    for (let s = 0; s < numSettings; s++) if (!(positions[s] >= low - 1e-6 && positions[s] <= high + 1e-6)) selected[s] = 0;
  }
}

function number(value, unit = true) {
  if (Number.isNaN(value)) return "–";
  if (quantity().share) return value.toFixed(2) + (unit ? " %" : "");
  return String(Number(value.toPrecision(4)));
}

function settingWords(s) {
  return contents.axes.map((axis) => `${axis.label.replace(/ \(.*\)$/, "")} ${axis.words[placesOf(axis)[s]]}`).join(", ");
}

function valueWords(s) {
  const { mean, half, diverged } = frame(), seeds = arrays.num_seeds[s];
  if (Number.isNaN(mean[s])) return diverged[s] ? "no mean, since a run diverged" : "no value at this budget";
  const width = half && !Number.isNaN(half[s]) ? ` ± ${number(half[s], false)} (95 % t interval over ${seeds} seeds)` : " (no interval: 1 seed)";
  return `${quantity().label.replace(/ \(.*\)$/, "")} ${number(mean[s])}${width}`;
}

function cellWords(s) {
  const { diverged } = frame(), seeds = arrays.num_seeds[s];
  const parts = [valueWords(s), `${diverged[s]} of ${seeds} run${seeds > 1 ? "s" : ""} diverged`, `rank ${(s + 1).toLocaleString("en")} of ${numSettings.toLocaleString("en")}`];
  if (isPruned(s)) parts.push(`pruned after ${arrays.pruned_step[s]} steps`);
  const compared = COMPARED[standing(s)];
  if (compared && (s === 0 || contents.is_tested)) parts.push(compared);
  return parts.join("; ");
}

function rerunCode(s, seed) {
  const values = contents.axes.map((axis) => axis.code[placesOf(axis)[s]]);
  return `jm.rerun(result, ${[...values, contents.seeds[seed]].join(", ")})`;
}

function element(name, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(name), attributes);
  made.textContent = text;
  return made;
}
