// Keyboard and copying. Every page works without it. It stores nothing and asks no server for anything.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");

  const find = (selector) => document.querySelector(selector);
  const entries = () => [...document.querySelectorAll(".list td.n a, .tile > a")];
  const isTyping = (element) => /^(INPUT|SELECT|TEXTAREA)$/.test(element.tagName);

  function say(words) {
    let place = document.getElementById("said");
    if (!place) {
      place = document.createElement("p");
      place.id = "said";
      place.className = "vh";
      place.setAttribute("role", "status");
      document.body.append(place);
    }
    place.textContent = words;
  }

  // For pages that are not a secure context: a gateway in the local network, over http.
  function copyTheOldWay(value) {
    const area = document.createElement("textarea");
    area.value = value;
    area.className = "vh";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }

  async function copy(button) {
    const back = document.activeElement;
    const value = button.dataset.copy;
    let copied = true;
    try {
      await navigator.clipboard.writeText(value);
    } catch {
      copied = copyTheOldWay(value);
      if (back) back.focus();
    }
    if (!copied) return;
    const drawing = button.querySelector("use");
    drawing.setAttribute("href", "#i-y");
    button.classList.add("done");
    say("Copied");
    setTimeout(() => {
      drawing.setAttribute("href", "#i-c");
      button.classList.remove("done");
    }, 1200);
  }

  function move(key) {
    const all = entries();
    if (!all.length) return false;
    let across = 1;
    if (find(".tile") && (key === "ArrowDown" || key === "ArrowUp")) {
      across = all.findIndex((entry) => entry.offsetTop > all[0].offsetTop);
      if (across < 1) across = all.length;
    }
    const by = { j: 1, k: -1, ArrowDown: across, ArrowUp: -across, ArrowRight: 1, ArrowLeft: -1 }[key];
    const at = all.indexOf(document.activeElement);
    const to = at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by;
    all[Math.max(0, Math.min(all.length - 1, to))].focus();
    return true;
  }

  function findName() {
    const field = find("input[data-find]");
    if (!field) return false;
    field.focus();
    field.select();
    return true;
  }

  function copyHere() {
    const row = document.activeElement.closest("tr, .tile");
    const button = (row || document).querySelector("button[data-copy]");
    if (button) copy(button);
    return Boolean(button);
  }

  function help() {
    const keys = find("details.keys");
    if (!keys) return false;
    keys.open = true;
    keys.querySelector("summary").focus();
    return true;
  }

  // A link, or the link inside an element, that is marked with its key.
  function follow(key) {
    const marked = find('[data-key="' + key + '"]');
    const link = marked && (marked.matches("a") ? marked : marked.querySelector("a"));
    if (link) link.click();
    return Boolean(link);
  }

  function pressed(key) {
    const sideways = key === "ArrowLeft" || key === "ArrowRight";
    if (["j", "k", "ArrowDown", "ArrowUp"].includes(key) || (sideways && find(".tile"))) return move(key);
    if (key === "/") return findName();
    if (key === "c") return copyHere();
    if (key === "?") return help();
    if (key === "i" && inspect()) return true;
    if (key === "Backspace") return follow("u");
    return /^[a-z]$/.test(key) && follow(key);
  }

  // The page about the entry that has the focus.
  function inspect() {
    const entry = entries().find((each) => each === document.activeElement);
    if (entry) location.assign(new URL("?inspect=node", entry.href));
    return Boolean(entry);
  }

  // A picture that does not come, or is none, gets the sign of its kind.
  document.addEventListener("error", (event) => {
    const drawing = event.target.matches(".th, .pic img") && find("svg.i").cloneNode(true);
    if (!drawing) return;
    drawing.querySelector("use").setAttribute("href", "#i-i");
    event.target.replaceWith(drawing);
  }, true);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (isTyping(event.target)) {
      if (event.key === "Escape") event.target.blur();
    } else if (pressed(event.key)) {
      event.preventDefault();
    }
  });
})();
