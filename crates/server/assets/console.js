// Says when the live part of a page has lost its connection, and when it is back; lets the keyboard reach what scrolls.
"use strict";

const banner = () => document.getElementById("lost");

document.addEventListener("htmx:sse:error", (event) => {
    if (event.detail && event.detail.status === 401) {
        // The session is over: the page itself leads to the door.
        location.reload();
        return;
    }
    if (banner()) banner().hidden = false;
});

for (const name of ["htmx:sse:after:connection", "htmx:sse:after:message"]) {
    document.addEventListener(name, () => {
        if (banner()) banner().hidden = true;
    });
}

// What scrolls sideways and holds nothing that takes the focus is reached and moved by the keyboard all the same.
const reachScrollers = () => {
    for (const one of document.querySelectorAll(".scroll")) {
        if (one.scrollWidth > one.clientWidth) one.tabIndex = 0;
        else one.removeAttribute("tabindex");
    }
};

reachScrollers();
window.addEventListener("resize", reachScrollers);
document.addEventListener("htmx:after:swap", reachScrollers);
document.addEventListener("htmx:sse:after:message", reachScrollers);

// Where the sections scroll, the one that the page is in is in view.
document.querySelector("header nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// A page that was restored from the browser's memory may be of another session.
window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
});
