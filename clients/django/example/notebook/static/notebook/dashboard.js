// Asks for news as long as the page is open.
const news = document.getElementById('news');
const asked = document.getElementById('asked');
let count = 0;

async function ask() {
  try {
    const answer = await fetch(news.dataset.url, { headers: { Accept: 'application/json' } });
    count += 1;
    asked.textContent = `asked ${count} times; the last answer was ${answer.status}`;
    if (answer.status === 401) {
      // The session is over: its element says why.
      document.querySelector('session-sidecar').session?.refresh();
      return;
    }
    if (answer.ok) news.textContent = (await answer.json()).number;
  } catch {
    asked.textContent = 'the site cannot be reached';
  }
  setTimeout(ask, Number(news.dataset.seconds) * 1000);
}

ask();
