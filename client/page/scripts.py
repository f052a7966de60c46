"""What the page does in the browser by itself, in JavaScript."""

import json

from client.page.drawing import KINDS

LOST = "The program behind this page does not answer: it was stopped, or the network is down. \
Nothing but the brush works here until it is back."
RESTARTED = "The program behind this page was restarted and no longer has your files: reload the \
page and drop them again."
NAMES = """
() => {
  // Gradio names all drop zones alike, and the icons of different parts; pictures it does not name.
  const name = () => {
    for (const label of document.querySelectorAll('[data-testid="block-label"]')) {
      const what = label.textContent.trim(), part = label.closest('.block');
      for (const button of part.querySelectorAll('button')) {
        const said = button.ariaLabel ?? '';
        if (said.startsWith(what) || (!said && button.textContent.trim())) continue;
        button.ariaLabel = said ? `${what}: ${said}` : what;
      }
      for (const image of part.querySelectorAll('img')) image.alt ||= what;
    }
    const brushes = KINDS;
    document.querySelectorAll('button.color').forEach((button, number) => {
      button.ariaLabel = `Brush: ${brushes[number]}`;
    });
    for (const group of document.querySelectorAll('fieldset'))
      group.ariaLabel = group.querySelector('[data-testid="block-info"]').textContent.trim();
    for (const picker of document.querySelectorAll('.color-picker')) {
      picker.querySelector('input').ariaLabel = 'Colour';
      picker.querySelector('.swatch').ariaLabel = 'Colour now';
      picker.querySelector('.eyedropper').ariaLabel = 'Colour from the screen';
    }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}
""".replace("KINDS", json.dumps(list(KINDS)))
CONNECTION = """
() => {
  // Gradio says “Error” if the page's program is gone, or was started anew and knows no file; of
  // the server behind that it knows nothing.
  const line = document.createElement('p');
  line.id = 'connection';
  line.role = 'alert';
  document.querySelector('.gradio-container').prepend(line);
  const say = (words, isThere = true) => {
    // Only what changes is read aloud.
    if (line.textContent !== words) line.textContent = words;
    // Whatever asked for the program now would make Gradio reload the page, painting and all.
    for (const part of document.querySelectorAll('main .block, main button'))
      part.inert = !isThere && !part.closest('#painting');
  };
  const trouble = async () => {
    const headers = { 'Content-Type': 'application/json' };
    const asked = { method: 'POST', headers, body: JSON.stringify({ data: [] }) };
    const answer = await fetch('gradio_api/run/server', asked);
    return (await answer.json()).data[0];
  };
  let first;
  const look = async () => {
    try {
      const answer = await fetch('gradio_api/app_id');
      if (!answer.ok) throw answer.status;
      const program = await answer.text();
      first ??= program;
      if (program === first) say(await trouble());
      else say(RESTARTED, false);
    } catch {
      say(LOST, false);
    }
  };
  setInterval(look, 3000);
  look();
}
""".replace("LOST", json.dumps(LOST)).replace("RESTARTED", json.dumps(RESTARTED))
ASK_BEFORE_LOSS = """
() => {
  // If the editor's own events were listened to, it would upload the painting after every stroke.
  addEventListener('pointerdown', event => {
    if (event.target.closest('#painting canvas')) window.hasUnsavedWork = true;
  }, true);
  addEventListener('beforeunload', event => {
    const isRunning = document.querySelector('#start').disabled;  // With the tab its run ends.
    if (window.hasUnsavedWork || isRunning) event.preventDefault();
  });
  // On the same event, but before anybody has answered, Gradio disconnects.
  const { abort } = AbortController.prototype;
  AbortController.prototype.abort = function (reason) {
    if (window.event?.type !== 'beforeunload') abort.call(this, reason);
  };
}
"""
WORKED = "photo => { window.hasUnsavedWork = photo !== null; }"
SAVED = "() => { window.hasUnsavedWork = false; }"
CLOSE_MESSAGES = """
() => {
  for (const button of document.querySelectorAll('[data-testid="toast-close"]')) button.click();
}
"""
BEGIN = """
async run => {
  await fetch('gradio_api/app_id');  // If it fails, the button stays: nothing would end the run.
  return [
    run + 1,
    { __type__: 'update', interactive: false },
    { __type__: 'update', interactive: true },
  ];
}
"""
CANCEL = "() => ({ __type__: 'update', value: 'Cancelling …', interactive: false })"
END = """
() => [
  { __type__: 'update', interactive: true },
  { __type__: 'update', interactive: false, value: 'Cancel' },
]
"""
# Who used the keyboard goes on where the run began, and sees what is seen now.
FOCUS_START = """
() => {
  if (document.activeElement === document.body)
    document.querySelector('#start').focus({ preventScroll: true });
}
"""
