// The view in the address: whoever opens it again, or sends it to somebody, finds the same axes, budget and selection.

const codeOf = (axis, place) => axis.code[place];
const axisNamed = (name) => contents.axes.findIndex((axis) => axis.name === name);

function view() {
  const { x, y, quantity: shownAt, budget: kind, amount, fixed, chosen, brushes } = state, axes = contents.axes;
  return {
    x: axes[x]?.name, y: axes[y]?.name, shown: contents.quantities[shownAt].name, budget: kind,
    amount: kind === "end" ? 0 : budget().amounts[amount],
    fixed: axes.map((axis, k) => codeOf(axis, fixed[k])),
    chosen: axes.map((axis) => codeOf(axis, placesOf(axis)[chosen])),
    brushes: [...brushes].map(([column, ends]) => [axes[column]?.name ?? "", ...ends]),
  };
}

let timer = 0;
function remember() {
  clearTimeout(timer);
  timer = setTimeout(() => history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(view()))}`), 200);
}

// What the address says of this result; the rest stays as it is.
function recall() {
  let said;
  try {
    said = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return;
  }
  const found = (place) => (place >= 0 ? place : null);
  const codes = (list) => contents.axes.map((axis, k) => found(axis.code.indexOf(list?.[k])));
  const x = axisNamed(said.x), y = axisNamed(said.y);
  if (x >= 0 && y >= 0 && (x !== y || contents.axes.length === 1)) [state.x, state.y] = [x, y];
  state.quantity = found(contents.quantities.findIndex(({ name }) => name === said.shown)) ?? state.quantity;
  if (contents.frames.some(({ name }) => name === said.budget) && hasCurves()) {
    state.budget = said.budget;
    state.amount = found(budget().amounts.findIndex((amount) => amount >= said.amount)) ?? budget().amounts.length - 1;
  }
  state.fixed = codes(said.fixed).map((place, k) => place ?? state.fixed[k]);
  const places = codes(said.chosen);
  for (let s = 0; s < numSettings; s++)
    if (contents.axes.every((axis, k) => placesOf(axis)[s] === places[k])) state.chosen = state.cursor = s;
  for (const [name, low, high] of Array.isArray(said.brushes) ? said.brushes : []) {
    const column = name === "" ? contents.axes.length : axisNamed(name);
    if (column >= 0 && Number.isFinite(low) && Number.isFinite(high)) state.brushes.set(column, [low, high]);
  }
}
