// The table of the settings that are selected, and tables of facts and of importances.

const PAGE_ROWS = 15;
const listing = { order: [], first: 0, by: "rank", isDown: false };

function tableColumns() {
  const { mean, half, diverged } = frame();
  return [
    { name: "rank", title: "rank", value: (s) => s, words: (s) => String(s + 1) },
    ...contents.axes.map((axis) => ({ name: axis.name, title: axis.label, value: (s) => placesOf(axis)[s], words: (s) => axis.words[placesOf(axis)[s]] })),
    { name: "=mean", title: quantity().label, value: (s) => mean[s], words: (s) => number(mean[s], false) },
    { name: "=half", title: "± (95 %)", value: (s) => (half ? half[s] : NaN), words: (s) => (half ? number(half[s], false) : "–") },
    { name: "=seeds", title: "seeds", value: (s) => arrays.num_seeds[s], words: (s) => String(arrays.num_seeds[s]) },
    { name: "=diverged", title: "diverged", value: (s) => diverged[s], words: (s) => String(diverged[s]) },
    ...(contents.is_tested ? [{ name: "=standing", title: "standing", value: (s) => arrays.standing[s], words: standing }] : []),
  ];
}

function orderTable() {
  const rows = [];
  for (let s = 0; s < numSettings; s++) if (selected[s]) rows.push(s);
  if (listing.by !== "rank" || listing.isDown) {
    const { value } = tableColumns().find((column) => column.name === listing.by), sign = listing.isDown ? -1 : 1;
    const keys = Float64Array.from({ length: numSettings }, (_, s) => value(s));
    // What has no value comes last, in whatever order.
    rows.sort((a, b) => Number.isNaN(keys[a]) - Number.isNaN(keys[b]) || sign * (keys[a] - keys[b]) || a - b);
  }
  listing.order = rows;
  listing.first = 0;
}

function drawTable() {
  const found = tableColumns(), head = element("tr"), count = listing.order.length;
  for (const column of found) {
    const cell = element("th", "", { scope: "col" }), button = element("button", column.title, { type: "button" });
    if (listing.by === column.name) cell.setAttribute("aria-sort", listing.isDown ? "descending" : "ascending");
    button.addEventListener("click", () => {
      Object.assign(listing, { by: column.name, isDown: listing.by === column.name && !listing.isDown });
      orderTable();
      drawTable();
      [...document.querySelectorAll("#settings th button")][found.indexOf(column)].focus();
    });
    cell.append(button);
    head.append(cell);
  }
  const rows = listing.order.slice(listing.first, listing.first + PAGE_ROWS).map((s) => {
    const row = element("tr", "", { className: s === state.chosen ? "is-chosen" : "" });
    row.append(...found.map(({ words }) => element("td", words(s))));
    const button = element("button", String(s + 1), { type: "button" });
    button.setAttribute("aria-label", `Choose the setting of rank ${s + 1}: ${settingWords(s)}`);
    button.addEventListener("click", () => choose(s));
    row.firstChild.replaceChildren(button);
    return row;
  });
  document.getElementById("settings").replaceChildren(head, ...rows);
  const end = Math.min(count, listing.first + PAGE_ROWS);
  document.getElementById("where").textContent = count ? `${listing.first + 1} to ${end} of ${count.toLocaleString("en")}` : "no setting is selected";
  document.getElementById("previous").disabled = listing.first === 0;
  document.getElementById("next").disabled = end >= count;
}

function turnTable(by) {
  listing.first = Math.max(0, listing.first + by * PAGE_ROWS);
  drawTable();
}

function factTable([title, rows]) {
  const table = element("table", "", { className: "facts", ariaLabel: title });
  for (const [name, words] of rows) {
    const row = element("tr");
    row.append(element("th", name, { scope: "row" }), element("td", words));
    table.append(row);
  }
  return [element("h2", title), table];
}

// Each share in words, and as a bar with its interval, which says the same.
function drawImportance() {
  const found = contents.importance;
  document.getElementById("importance").hidden = !found;
  if (!found) return;
  const head = element("tr");
  head.append(...["hyperparameter", ...found.methods].map((title) => element("th", title, { scope: "col" })));
  const rows = found.rows.map(({ label, shares }) => {
    const row = element("tr");
    row.append(element("th", label, { scope: "row" }), ...shares.map(shareCell));
    return row;
  });
  document.getElementById("shares").replaceChildren(head, ...rows);
  document.getElementById("importance-note").textContent = found.note;
}

function shareCell({ words, value, low, high }) {
  const cell = element("td", words), bar = element("div", "", { className: "share" });
  bar.setAttribute("aria-hidden", "true");
  const [length, ends] = ["value", "ends"].map((className) => element("span", "", { className }));
  length.style.width = `${100 * value}%`;
  Object.assign(ends.style, { left: `${100 * low}%`, width: `${100 * (high - low)}%` });
  bar.append(length, ends);
  cell.append(bar);
  return cell;
}
