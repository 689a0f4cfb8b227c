/* Keys, paste, picture layers, light and dark. All events are delegated, since Gradio may render its elements again at any time. */
(() => {
  const root = document.documentElement;
  const KEYS = {o: 'say-ok', n: 'say-ng', j: 'next', arrowright: 'next', k: 'previous', arrowleft: 'previous'};
  const CHANGES_PART = '#next, #previous, #say-ok, #say-ng, #gallery [data-part]';
  const MAX_WAITING_KEYS = 50, ANSWER_MS = 10000;

  const visibleElement = id => { const found = document.getElementById(id); return found && found.offsetParent !== null ? found : null; };
  // Whether the element with the focus uses this key itself, as a text field or a slider does.
  const usesKey = (target, key) => {
    if (target.isContentEditable || ['TEXTAREA', 'SELECT'].includes(target.tagName)) return true;
    if (target.tagName !== 'INPUT') return false;
    return ['checkbox', 'button'].includes(target.type) ? false : target.type !== 'range' || key.startsWith('arrow');
  };

  document.addEventListener('keydown', event => {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey || usesKey(event.target, key)) return;
    // Left and right belong to the tabs while one of them has the focus.
    if (key.startsWith('arrow') && event.target.getAttribute?.('role') === 'tab') return;
    if (key === 'h' && visibleElement('viewer')) { root.classList.toggle('no-heat'); return; }
    if (!KEYS[key] || !visibleElement(KEYS[key])) return;
    event.preventDefault();
    // A key that is held down steps on as fast as the server answers; it never marks again.
    if (event.repeat && (KEYS[key].startsWith('say-') || waitingKeys.length || unansweredClicks)) return;
    if (waitingKeys.length < MAX_WAITING_KEYS) waitingKeys.push(KEYS[key]);
    handleKeys();
  });

  // Each key waits until the page shows the effect of the one before: otherwise a mark for the next part would act on this one.
  const waitingKeys = [];
  let unansweredClicks = 0, answerTimer;
  const handleKeys = () => {
    while (waitingKeys.length && !unansweredClicks) visibleElement(waitingKeys.shift())?.click();
  };
  const countAnswers = answers => {
    unansweredClicks = Math.max(0, unansweredClicks - answers);
    clearTimeout(answerTimer);
    if (!unansweredClicks) handleKeys();
    // Without an answer, the page may show anything: the keys that wait are dropped.
    else answerTimer = setTimeout(() => { waitingKeys.length = unansweredClicks = 0; }, ANSWER_MS);
  };
  document.addEventListener('click', event => { if (event.target.closest?.(CHANGES_PART)) { unansweredClicks++; countAnswers(0); } });
  // Called after the server's answer to such a click, before the page has rendered it.
  window.studioAnswered = () => requestAnimationFrame(() => setTimeout(() => countAnswers(1)));

  // Gradio turns a number field that is left empty into its smallest value, here "everything is NG": put the former value back.
  document.addEventListener('focus', event => { if (isNumberField(event.target)) event.target.dataset.former = event.target.value; }, true);
  document.addEventListener('blur', event => {
    const {target} = event;
    if (!isNumberField(target) || target.value !== '' || !target.dataset.former) return;
    target.value = target.dataset.former;
    target.dispatchEvent(new Event('input', {bubbles: true}));
  }, true);
  const isNumberField = target => Boolean(target.matches?.('#left input[type=number]'));

  document.addEventListener('paste', event => {
    const files = [...(event.clipboardData?.files ?? [])];
    const input = document.querySelector('#drop input[type=file]');
    if (!files.length || !input) return;
    const transfer = new DataTransfer();
    files.forEach(file => transfer.items.add(file));
    input.files = transfer.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  });

  document.addEventListener('input', event => {
    const {target} = event;
    if (target.dataset?.view === 'heat') root.style.setProperty('--heat', target.value / 100);
    else if (target.dataset?.view) root.classList.toggle(`no-${target.dataset.view}`, !target.checked);
    else if ('wipe' in (target.dataset ?? {})) root.style.setProperty('--wipe', `${target.value}%`);
  });

  document.addEventListener('click', event => {
    if (!event.target.closest('[data-theme-switch]')) return;
    const dark = document.body.classList.toggle('dark');
    localStorage.setItem('inspect-kd-theme', dark ? 'dark' : 'light');
  });

  const applyRememberedTheme = () => {
    const wanted = localStorage.getItem('inspect-kd-theme');
    if (wanted && !new URLSearchParams(location.search).has('__theme')) document.body.classList.toggle('dark', wanted === 'dark');
  };
  // Gradio sets a theme of its own while it starts; apply the remembered one after that.
  window.addEventListener('load', () => setTimeout(applyRememberedTheme, 400));

  window.studioKeepWipe = () => {
    const wipe = document.querySelector('#viewer [data-wipe]');
    if (wipe) wipe.value = parseFloat(root.style.getPropertyValue('--wipe')) || 0;
  };

  // Keep the focus on a card that was selected by key, although all cards were rendered again, and scroll to it.
  window.studioKeepFocus = element => {
    const chosen = element.querySelector('[aria-pressed=true][data-part]');
    if (!chosen) return;
    if (element.dataset.focused === 'yes') chosen.focus({preventScroll: true});
    const box = element.getBoundingClientRect(), card = chosen.getBoundingClientRect();
    if (card.top < box.top || card.bottom > box.bottom) chosen.scrollIntoView({block: 'nearest'});
  };
  document.addEventListener('focusin', event => {
    const gallery = document.getElementById('gallery');
    if (gallery) gallery.dataset.focused = event.target.closest?.('#gallery [data-part]') ? 'yes' : 'no';
  });

  // After a picture was taken, the browser has already allowed the camera: show the live picture again without a question.
  window.studioLiveAgain = () => setTimeout(() => document.querySelector('#camera [title="grant webcam access"] button')?.click(), 300);

  // A mark is for the part that the page shows, even if the server has selected another one since.
  window.studioShownPart = () => document.querySelector('#viewer [data-shown]')?.dataset.shown ?? '';

  window.studioDownload = link => {
    const anchor = document.createElement('a');
    anchor.href = link;
    anchor.download = decodeURIComponent(link.split('/').pop());
    document.body.append(anchor);
    anchor.click();
    anchor.remove();
  };
})();
