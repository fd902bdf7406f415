"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const button = (text) => Object.assign(document.createElement("button"), { type: "button", textContent: text });

  // Theme: the system's, until somebody chooses; nothing is stored.
  const root = document.documentElement, theme = document.querySelector(".theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { theme.textContent = isDark() ? "Light theme" : "Dark theme"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  theme.hidden = false; label();

  // Where the reader is, in the bar of contents.
  const links = new Map(all("nav.contents a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      links.forEach((link, id) => id === entry.target.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  links.forEach((_, id) => { const section = document.getElementById(id); if (section) seen.observe(section); });

  // Tabs by the arrow keys, as the ARIA practices have them; one choice for every list that has it.
  const lists = all("[role=tablist]");
  const choose = (choice, list, focus) => {
    for (const tabs of lists.map((each) => all("[role=tab]", each))) {
      if (!tabs.some((tab) => tab.dataset.choice === choice)) continue;
      for (const tab of tabs) {
        const chosen = tab.dataset.choice === choice;
        tab.setAttribute("aria-selected", String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
        if (chosen && focus && list.contains(tab)) tab.focus();
      }
    }
  };
  for (const list of lists) {
    const tabs = all("[role=tab]", list);
    tabs.forEach((tab, at) => {
      tab.addEventListener("click", () => {
        const before = tab.getBoundingClientRect().top;
        choose(tab.dataset.choice, list, false);
        scrollBy({ top: tab.getBoundingClientRect().top - before, behavior: "instant" }); // panels above may differ in height
      });
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(tabs[(to + tabs.length) % tabs.length].dataset.choice, list, true);
      });
    });
    choose(tabs[0].dataset.choice, list, false);
  }

  // A heat map is one stop of the tab key; from there arrow keys move from cell to cell.
  for (const table of all("table.heat")) {
    const rows = [...table.rows].map((row) => [...row.cells].map((cell) => "tip" in cell.dataset ? cell : null));
    const cells = rows.flat().filter(Boolean);
    cells.forEach((cell, at) => { cell.tabIndex = at ? -1 : 0; });
    table.addEventListener("keydown", (event) => {
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      const from = event.target.closest("td");
      if (!move || !from) return;
      event.preventDefault();
      let row = from.parentNode.rowIndex, column = from.cellIndex, next = null;
      do { row += move[0]; column += move[1]; next = rows[row]?.[column]; } while (next === null);
      if (!next) return;
      cells.forEach((cell) => { cell.tabIndex = cell === next ? 0 : -1; });
      next.focus();
    });
  }

  // One tooltip for everything that has words in data-tip; by mouse, by touch and by keyboard.
  const tip = document.createElement("div");
  tip.id = "tip"; tip.hidden = true; tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const show = (event) => {
    const about = event.target.closest && event.target.closest("[data-tip]");
    if (!about) { tip.hidden = true; return; }
    const row = about.closest("[data-row]");
    tip.textContent = (row ? row.dataset.row + ", " : "") + about.dataset.tip;
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
  for (const table of all("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const sorter = button(head.textContent);
      head.replaceChildren(sorter);
      sorter.addEventListener("click", () => {
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

  // Code to copy; where the browser gives no clipboard to a file, the code is selected instead.
  for (const code of all("pre.code")) {
    const text = code.textContent, copy = button("Copy");
    copy.className = "copy"; copy.setAttribute("aria-live", "polite");
    const box = document.createElement("div");
    box.className = "copyable"; code.replaceWith(box); box.append(code, copy);
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
  }
})();
