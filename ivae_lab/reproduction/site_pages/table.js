// Filters and sorts the table of claims. Without this file it is a plain table.
"use strict";

(() => {
  const table = document.querySelector("table.claims");
  const form = document.querySelector("form.filters");
  const count = document.getElementById("count");
  const rows = [...table.tBodies[0].rows];
  const headers = [...table.tHead.rows[0].cells];
  const SELECTS = ["paper", "variant", "verdict"];
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  const sorted = { column: "", order: "none" };

  const key = (row, index) => row.cells[index].dataset.sort ?? row.cells[index].textContent.trim();

  // Numbers come before words, and words in their order with the numbers in them as numbers: fig2 before fig10.
  function compare(one, other) {
    const a = Number(one), b = Number(other);
    if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
    return one.localeCompare(other, "en", { numeric: true });
  }

  function sort() {
    const index = headers.findIndex((header) => header.dataset.name === sorted.column);
    const sign = sorted.order === "descending" ? -1 : 1;
    const order = sorted.order === "none" ? rows : [...rows].sort((a, b) => sign * compare(key(a, index), key(b, index)));
    table.tBodies[0].append(...order);
    for (const header of headers) {
      header.setAttribute("aria-sort", header.dataset.name === sorted.column ? sorted.order : "none");
    }
  }

  function filter() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word)) &&
        SELECTS.every((name) => ["", row.dataset[name]].includes(form.elements[name].value));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === rows.length ? `${shown} claims` : `${shown} of ${rows.length} claims`;
  }

  // What is chosen stands in the address, so that going back, a bookmark or a link finds it again.
  function remember() {
    const chosen = new URLSearchParams();
    for (const name of ["text", ...SELECTS]) {
      if (form.elements[name].value) chosen.set(name, form.elements[name].value);
    }
    if (sorted.order !== "none") chosen.set(sorted.order, sorted.column);
    history.replaceState(null, "", `#${chosen}`);
  }

  function recall() {
    const chosen = new URLSearchParams(location.hash.slice(1));
    for (const name of ["text", ...SELECTS]) form.elements[name].value = chosen.get(name) ?? "";
    for (const select of form.querySelectorAll("select")) {
      if (select.selectedIndex < 0) select.value = "";
    }
    sorted.order = ["ascending", "descending"].find((order) => chosen.has(order)) ?? "none";
    sorted.column = chosen.get(sorted.order) ?? "";
  }

  function update() {
    filter();
    sort();
  }

  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.dataset.name = header.textContent;
    button.addEventListener("click", () => {
      sorted.order = sorted.column === button.textContent ? NEXT[sorted.order] : "ascending";
      sorted.column = button.textContent;
      sort();
      remember();
    });
    header.replaceChildren(button);
  }
  form.addEventListener("input", () => { filter(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault(); // a reset would bring back what the browser filled in
    for (const name of ["text", ...SELECTS]) form.elements[name].value = "";
    sorted.order = "none";
    update();
    remember();
    form.elements.text.focus();
  });
  window.addEventListener("hashchange", () => {
    if (document.getElementById(location.hash.slice(1))) return; // a place on the page, such as the skip link's
    recall();
    update();
  });
  form.hidden = false;
  recall();
  update();
})();
