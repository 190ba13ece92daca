"use strict";
// Reading values from charts and sorting tables. The page is complete without any of this.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, text) {
  const made = document.createElement(name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  return made;
}

// A chart is read at its stops: the nearest to the pointer, or step by step with the arrow keys.
function readable(figure) {
  const plot = figure.querySelector(".plot");
  const svg = plot.querySelector("svg");
  const tip = plot.querySelector(".tip");
  const { direction, columns, series, colors, stops } =
    JSON.parse(figure.querySelector("script").textContent);
  if (!stops.length) return;
  let current = -1;
  let drawn = [];

  plot.setAttribute("role", "slider");
  plot.setAttribute("tabindex", "0");
  plot.setAttribute("aria-label", `${figure.querySelector("h3").textContent}: read values with the arrow keys`);
  plot.setAttribute("aria-orientation", direction === "y" ? "vertical" : "horizontal");
  plot.setAttribute("aria-valuemin", "1");
  plot.setAttribute("aria-valuemax", String(stops.length));
  say(0);

  function say(index) {
    const [, , head, rows] = stops[index];
    const words = rows.map(([number, , , text]) => `${series[number]} ${text}`);
    plot.setAttribute("aria-valuenow", String(index + 1));
    plot.setAttribute("aria-valuetext", `${head}: ${words.join("; ") || "no value"}`);
  }

  function clear() {
    drawn.forEach((part) => part.remove());
    drawn = [];
  }

  function show(index) {
    current = index;
    clear();
    const [x, y, head, rows] = stops[index];
    if (direction === "x") {
      drawn.push(shape("line", { class: "cursor", x1: `${x}%`, x2: `${x}%`, y1: 0, y2: plot.clientHeight }));
    } else if (direction === "y") {
      drawn.push(shape("line", { class: "cursor", x1: "0", x2: "100%", y1: y, y2: y }));
    }
    for (const [, px, py] of rows) {
      drawn.push(shape("circle", { class: "ring", cx: `${px}%`, cy: py, r: 7 }));
    }
    drawn.forEach((part) => svg.append(part));
    tip.replaceChildren(element("b", {}, head));
    for (const [number, , , text] of rows) {
      const line = element("div", {});
      const key = element("i", {});
      key.style.setProperty("--p", colors[number][0]);
      key.style.setProperty("--d", colors[number][1]);
      line.append(key, element("span", {}, `${series[number]} ${text}`));
      tip.append(line);
    }
    tip.hidden = false;
    place(x, direction === "x" ? 0 : y);
    say(index);
  }

  // Beside the cursor, on the side with more room, and never past the edge of the window.
  function place(x, y) {
    const box = plot.getBoundingClientRect();
    const width = tip.offsetWidth;
    const at = (x / 100) * box.width;
    let left = x > 50 ? at - width - 14 : at + 14;
    const most = document.documentElement.clientWidth - box.left - width - 4;
    left = Math.max(4 - box.left, Math.min(left, most));
    tip.style.left = `${left}px`;
    tip.style.top = `${direction === "x" ? 4 : y + 14}px`;
  }

  function hide() {
    current = -1;
    clear();
    tip.hidden = true;
  }

  function nearest(event) {
    const box = plot.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 100;
    const y = event.clientY - box.top;
    let best = 0;
    let least = Infinity;
    stops.forEach(([sx, sy], index) => {
      const dx = ((sx - x) / 100) * box.width;
      const dy = sy - y;
      const distance = direction === "x" ? Math.abs(dx) : direction === "y" ? Math.abs(dy) : dx * dx + dy * dy;
      if (distance < least) { least = distance; best = index; }
    });
    return best;
  }

  function onPointer(event) {
    const index = nearest(event);
    if (index !== current) show(index);
  }
  plot.addEventListener("pointermove", onPointer);
  plot.addEventListener("pointerdown", onPointer);
  plot.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") hide();
  });
  plot.addEventListener("focus", () => {
    if (current < 0 && plot.matches(":focus-visible")) show(0);
  });
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const row = direction === "grid" ? columns : 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") { hide(); return; }
    if (!(event.key in steps)) return;
    event.preventDefault();
    const from = current < 0 ? 0 : current;
    const to = from + steps[event.key];
    if (direction === "grid" && Math.abs(steps[event.key]) === columns && !(to in stops)) return;
    show(Math.max(0, Math.min(stops.length - 1, to)));
  });
}

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

document.querySelectorAll("figure.chart").forEach(readable);
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".filter input").forEach(filterable);
