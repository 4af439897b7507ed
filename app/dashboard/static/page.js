// What every page can do beyond its HTML: copy buttons, and menus that close.

export function offerCopies(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
}

async function copy(button) {
  const label = button.textContent;
  button.textContent = (await write(button.dataset.copy)) ? "Copied" : "Not copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return writeWithoutPermission(text); // plain HTTP on another host has no clipboard API
  }
}

function writeWithoutPermission(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function closeMenus(event) {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    const escaped = event.key === "Escape";
    if (escaped && menu.contains(document.activeElement)) {
      menu.querySelector("summary").focus();
    }
    menu.open = !(escaped || (event.type === "click" && !menu.contains(event.target)));
  }
}

offerCopies(document);
document.addEventListener("click", closeMenus);
document.addEventListener("keydown", closeMenus);
