"use strict";

// Sorts tables by their headers, and filters the models of a track. Without it, all is shown.

const cellValue = (row, index) => row.cells[index].dataset.value ?? row.cells[index].textContent.trim();

// undefined values come last in both orders
function compare(first, second, asNumber, sign) {
  if (first === "" || second === "") return (first === "") - (second === "");
  return sign * (asNumber ? Number(first) - Number(second) : first.localeCompare(second, "en"));
}

function sortBy(table, header) {
  const index = header.cellIndex;
  const asNumber = header.dataset.sort === "number";
  const natural = header.dataset.order || "descending";
  const opposite = natural === "ascending" ? "descending" : "ascending";
  const order = header.getAttribute("aria-sort") === natural ? opposite : natural;
  const sign = order === "ascending" ? 1 : -1;

  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((a, b) => compare(cellValue(a, index), cellValue(b, index), asNumber, sign));
  body.append(...rows);

  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
}

function makeSortable(table) {
  for (const header of table.tHead.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(table, header));
    header.append(button);
  }
}

function isShown(row, text, overlap, rankedOnly) {
  const kind = row.dataset.overlap;
  return row.querySelector("th").textContent.toLowerCase().includes(text)
    && !(overlap === "unseen" && kind === "test")
    && !(overlap === "none" && kind !== "none")
    && !(rankedOnly && row.dataset.ranked === undefined);
}

function makeFilterable(form) {
  const rows = [...document.getElementById(form.dataset.filters).tBodies[0].rows];
  const update = () => {
    const { text, overlap, ranked } = form.elements;
    const words = text.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      row.hidden = !isShown(row, words, overlap.value, ranked.checked);
      count += !row.hidden;
    }
    form.querySelector("output").value = `${count} of ${rows.length} models`;
  };
  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll("form[data-filters]").forEach(makeFilterable);
