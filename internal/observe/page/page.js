// Puts the node's present state into the page every two seconds while somebody
// looks at it. Only what changed is touched, so that focus, selection and
// scrolling stay where they are.
'use strict';
(() => {
  const now = document.getElementById('now');
  const pause = document.getElementById('pause');
  const every = 2000;
  let paused = false;

  // morph makes the children of a those of b.
  function morph(a, b) {
    const from = [...a.childNodes], to = [...b.childNodes];
    to.forEach((want, i) => {
      const have = from[i];
      if (!have) {
        a.append(want);
      } else if (have.nodeType !== want.nodeType || have.nodeName !== want.nodeName || have.id !== want.id) {
        have.replaceWith(want);
      } else if (have.nodeType !== Node.ELEMENT_NODE) {
        if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
      } else {
        for (const {name} of [...have.attributes]) if (!want.hasAttribute(name)) have.removeAttribute(name);
        for (const {name, value} of want.attributes) if (have.getAttribute(name) !== value) have.setAttribute(name, value);
        morph(have, want);
      }
    });
    from.slice(to.length).forEach((left) => left.remove());
  }

  async function look() {
    if (!paused && !document.hidden) {
      try {
        const answer = await fetch('now', {cache: 'no-store', signal: AbortSignal.timeout(5000)});
        if (!answer.ok) throw new Error(answer.statusText);
        const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
        morph(now, next.body);
        now.classList.remove('old');
        document.documentElement.dataset.looks = 1 + Number(document.documentElement.dataset.looks || 0);
      } catch {
        now.classList.add('old'); // the node does not answer
      }
    }
    setTimeout(look, every);
  }

  pause.hidden = false;
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', paused);
    pause.textContent = paused ? 'Go on' : 'Pause';
  });
  setTimeout(look, 1100); // soon: the first look knows no rates
})();
