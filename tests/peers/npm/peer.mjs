// Builds and reads IPFS content with implementations in JavaScript. Driven by tests/peers and tests/fuzz.
//
// Takes a JSON list of jobs on standard input and prints the list of their results, all in one process. Every job
// names a verb in "do"; the modules say what each takes and gives. A job that fails has the result {"error"}. Nothing
// is ever fetched: blocks come from the folder, the CAR or the job itself.
import { text } from 'node:stream/consumers'
import { decodeAll } from './codecs.mjs'
import { chooseRecord, signRecord, validateRecords } from './names.mjs'
import { exportCar, importFolder } from './unixfs.mjs'

const verbs = {
  import: importFolder,
  export: exportCar,
  decode: decodeAll,
  sign: signRecord,
  validate: validateRecords,
  select: chooseRecord
}
const results = []
for (const job of JSON.parse(await text(process.stdin))) {
  try {
    if (!Object.hasOwn(verbs, job.do)) throw new Error(`unknown job ${job.do}`)
    results.push(await verbs[job.do](job))
  } catch (error) {
    results.push({ error: `${error.name}: ${error.message}` })
  }
}
process.stdout.write(JSON.stringify(results))
