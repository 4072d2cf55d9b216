// Long work of the server, begun by this page. The page holds the session too: a site behind a gateway has nobody else who would.
const form = document.getElementById('build');
const progress = document.getElementById('progress');

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = form.querySelector('button');
  button.disabled = true;
  progress.textContent = 'It is being built…';
  const { session } = document.querySelector('session-sidecar');
  const hold = await session?.hold({ purpose: 'yearly report' });
  try {
    const answer = await fetch(form.action, { method: 'POST', body: new FormData(form) });
    if (answer.status === 401) session?.refresh();
    progress.textContent = answer.ok ? `It is ready: number ${(await answer.json()).number}.` : 'It could not be built.';
  } catch {
    progress.textContent = 'The site cannot be reached.';
  } finally {
    await hold?.release();
    button.disabled = false;
  }
});
