"use strict";
(() => {
  // Theme: the system's, until somebody chooses; nothing is stored.
  const root = document.documentElement, theme = document.querySelector(".theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { theme.textContent = isDark() ? "Light theme" : "Dark theme"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  theme.hidden = false; label();

  // Tabs by the arrow keys, as the ARIA practices have them; one choice of metric for every section.
  const lists = [...document.querySelectorAll("[role=tablist]")];
  const choose = (metric, list, focus) => {
    for (const tabs of lists) {
      for (const tab of tabs.querySelectorAll("[role=tab]")) {
        const chosen = tab.dataset.metric === metric;
        tab.setAttribute("aria-selected", String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
        if (chosen && focus && tabs === list) tab.focus();
      }
    }
  };
  for (const list of lists) {
    const tabs = [...list.querySelectorAll("[role=tab]")];
    tabs.forEach((tab, at) => {
      tab.addEventListener("click", () => choose(tab.dataset.metric, list, false));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(tabs[(to + tabs.length) % tabs.length].dataset.metric, list, true);
      });
    });
    if (tabs.length) choose(tabs[0].dataset.metric, list, false);
  }

  // One tooltip for everything that has words in data-tip; by mouse and by keyboard.
  const tip = document.createElement("div");
  tip.id = "tip"; tip.hidden = true; tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const show = (event) => {
    const about = event.target.closest && event.target.closest("[data-tip]");
    if (!about) { tip.hidden = true; return; }
    tip.textContent = about.dataset.tip;
    tip.hidden = false;
    const box = about.getBoundingClientRect(), width = tip.offsetWidth;
    tip.style.left = Math.max(8, Math.min(innerWidth - width - 8, box.left + box.width / 2 - width / 2)) + "px";
    const above = box.top - tip.offsetHeight - 8;
    tip.style.top = (above > 4 ? above : box.bottom + 8) + "px";
  };
  for (const name of ["mouseover", "focusin"]) document.addEventListener(name, show);
  for (const name of ["focusout", "scroll"]) document.addEventListener(name, () => { tip.hidden = true; }, true);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  // Tables that sort by a click, or by Enter, on a heading; numbers as numbers, what is missing last.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = head.textContent; head.textContent = ""; head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const rows = [...table.tBodies[0].rows].map((row, at) => ({ row, at, text: value(row), number: parseFloat(value(row).replace("\u2212", "-")) }));
        const numeric = rows.some((one) => !Number.isNaN(one.number)) && column > 0;
        rows.sort((one, other) => {
          if (numeric) {
            const missing = Number.isNaN(one.number) - Number.isNaN(other.number);
            if (missing || Number.isNaN(one.number)) return missing || one.at - other.at;
            return (up ? 1 : -1) * (one.number - other.number) || one.at - other.at;
          }
          return (up ? 1 : -1) * one.text.localeCompare(other.text) || one.at - other.at;
        });
        table.tBodies[0].append(...rows.map((one) => one.row));
      });
    });
  }
})();
