// Says when the live part of a page has lost its connection, and when it is back; asks before a form that says so is sent.
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

// A page that was restored from the browser's memory may be of another session.
window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
});
