// Goes on by itself where the page says so: the browser that asked for a link need not press the button.
// Without this script the button does the same.
"use strict";
// The address holds the link's token; it need not stay in the history.
history.replaceState(null, "", location.pathname);
document.querySelector("form[data-go-on]")?.requestSubmit();
