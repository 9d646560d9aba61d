"use strict";
// Sorts and filters the table of all rows, and copies commands. The page is complete without.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  // ---- copying ----
  const copy = async (code, button) => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // No clipboard for this page: leave the text shown and selected, for the reader's own copying.
      copied = false;
      code.classList.add("shown");
      getSelection().selectAllChildren(code);
    }
    button.textContent = copied ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  for (const code of document.querySelectorAll("code.command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.title = code.textContent;
    button.addEventListener("click", () => copy(code, button));
    code.before(button);
  }

  // ---- printing ----
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const details of closed) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of closed) details.open = false; });

  const table = document.getElementById("rows");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  // ---- filtering ----
  const wanted = Object.fromEntries(
    ["text", "check", "subject", "status"].map((name) => [name, document.getElementById(`filter-${name}`)]));
  const count = document.getElementById("count");
  const matches = (row, words) =>
    (!wanted.check.value || row.dataset.check === wanted.check.value)
    && (!wanted.subject.value || row.dataset.subject === wanted.subject.value)
    && (!wanted.status.value || row.dataset.status === wanted.status.value
        || (wanted.status.value === "not good" && row.dataset.look === "bad"))
    && words.every((word) => text.get(row).includes(word));
  const filter = () => {
    const words = wanted.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !matches(row, words);
      shown += !row.hidden;
    }
    count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  };
  const choose = (values) => {
    for (const [name, control] of Object.entries(wanted)) control.value = values[name] ?? "";
    filter();
  };
  for (const control of Object.values(wanted)) control.addEventListener("input", filter);
  document.querySelector(".controls").hidden = false;

  // Links into the table: to a set of rows, or to one, which a filter may have hidden.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link) return;
    const { check, subject, status } = link.dataset;
    if (check || status) {
      choose({ check, subject, status });
      event.preventDefault();
      document.getElementById("table").scrollIntoView();
      table.parentElement.focus({ preventScroll: true });
    } else if (document.getElementById(link.hash.slice(1))?.hidden) {
      choose({});
    }
  });

  // ---- sorting ----
  const headers = [...table.tHead.rows[0].cells];
  const compareText = new Intl.Collator("en", { numeric: true }).compare;
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const unsort = () => { for (const header of headers) header.setAttribute("aria-sort", "none"); };
  const sort = (header) => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    const { numeric } = header.dataset;
    const column = Number(header.dataset.key);
    const compare = (a, b) => {
      const [x, y] = [key(a, column), key(b, column)];
      if (x === y) return 0;
      if (x === "" || y === "") return x === "" ? 1 : -1;  // what is missing comes last either way
      const order = numeric !== undefined ? Number(x) - Number(y) : compareText(x, y);
      return ascending ? order : -order;
    };
    unsort();
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...[...rows].sort(compare));
  };
  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sort(header));
    header.replaceChildren(button);
  }
  unsort();
  document.getElementById("reset").addEventListener("click", () => {
    choose({});
    unsort();
    body.append(...rows);
  });
})();
