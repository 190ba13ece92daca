"use strict";
// Sorting and filtering tables. The page is complete without any of this.

// A click on a heading sorts by it; a second click turns the order round. Empty cells stay last.
function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("num");
    const key = (row) => {
      const cell = row.cells[column];
      const text = cell.dataset.v ?? cell.textContent;
      if (!numeric) return text === "–" ? null : text;
      const number = parseFloat(text);
      return Number.isNaN(number) ? null : number;
    };
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const compare = numeric ? (a, b) => a - b : new Intl.Collator("en", { numeric: true }).compare;
      const keyed = [...body.rows].map((row) => [key(row), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * compare(a, b);
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

function filterable(input) {
  const rows = [...input.closest(".table").querySelector("tbody").rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const status = input.closest(".filter").querySelector("[role=status]");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    status.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".filter input").forEach(filterable);
