// Puts a new copy of the page's middle in place of the old one, without flicker, and leaves what is open open. Without
// JavaScript the page loads itself again.
"use strict";
const every = 5000;
async function refresh() {
  if (document.hidden || String(getSelection()) !== "") return;
  try {
    const answer = await fetch(location.href, {cache: "no-store"});
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const open = [...document.querySelectorAll("details")].map(d => d.open);
    const lists = [...document.querySelectorAll(".events")].map(l => l.scrollTop);
    for (const id of ["main", "time"]) document.getElementById(id).replaceWith(page.getElementById(id));
    document.querySelectorAll("details").forEach((d, i) => { d.open = open[i] || false; });
    document.querySelectorAll(".events").forEach((l, i) => { l.scrollTop = lists[i] || 0; });
    document.querySelector("header .mark").className = page.querySelector("header .mark").className;
    document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").href;
    document.title = page.title;
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
  }
}
setInterval(refresh, every);
document.addEventListener("visibilitychange", refresh);
