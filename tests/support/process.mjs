// Processes under test: the ports that they listen on, and how they are made to hang. For the tests in JavaScript.

import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

/**
 * This port if it is free, or any; none that the system gives to whoever asks for any port before it is listened on here, and none twice, in whatever
 * process that asks here: it stays taken on another address as long as this one runs.
 */
export async function freePort(wanted = randomInt(20_000, 32_768)) {
  const taken = createServer().unref();
  const tried = createServer();
  try {
    await once(taken.listen(wanted, '127.0.0.2'), 'listening');
    await once(tried.listen(wanted, '127.0.0.1'), 'listening');
  } catch (error) {
    if (error.code !== 'EADDRINUSE') throw error;
    taken.close();
    return freePort();
  }
  tried.close();
  await once(tried, 'close');
  return wanted;
}

/** Whether a thread is stopped. One that has ended meanwhile is not, and is not found the next time. */
function stands(task) {
  try {
    return readFileSync(join(task, 'stat'), 'utf8').includes(') T ');
  } catch {
    return false;
  }
}

/** While `during` runs, all threads of a process are stopped. A signal alone is not enough: one that runs on another processor stops later. */
export async function standingStill(child, during) {
  child.kill('SIGSTOP');
  try {
    const tasks = `/proc/${child.pid}/task`;
    const until = performance.now() + 30_000;
    while (!readdirSync(tasks).every((task) => stands(join(tasks, task)))) {
      if (performance.now() > until) throw new Error('it does not stand still');
      await new Promise(setImmediate);
    }
    return await during();
  } finally {
    child.kill('SIGCONT');
  }
}
