// Asks for the access token.

import { byId } from "./words.js";

/** Resolve to a token, or to null where the user gives none. */
export function askForToken(wasWrong) {
  const dialog = byId("token");
  const text = byId("token-text");
  const wrong = byId("token-wrong");
  const opener = document.activeElement;
  text.value = "";
  wrong.textContent = wasWrong ? "The server does not take the token that was given." : "";
  return new Promise((resolve) => {
    let given = null;
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      given = text.value.trim();
      if (/^[\x21-\x7e]+$/.test(given)) {
        dialog.close();
        return;
      }
      given = null;
      wrong.textContent = "A token has letters, digits and signs of ASCII, and no spaces.";
    };
    byId("token-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      text.value = "";
      opener?.focus?.();
      resolve(given);
    };
    dialog.showModal();
    text.focus();
  });
}
