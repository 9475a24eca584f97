// Builds and reads UnixFS with the JavaScript implementation (Helia's importer and exporter). Driven by tests/peers.
//
// Takes a JSON list of jobs on standard input and prints the list of their results, all in one process:
//
//   {"do": "import", "profile", "folder", "car"} → {"root"}
//   {"do": "export", "car"} → {"root", "entries": [{path, type, size, sha256, target, mode, mtime}]}
//
// A job that fails has the result {"error"}. Nothing is ever fetched: blocks come from the folder or the CAR.
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { CarReader, CarWriter } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'
import { exporter } from 'ipfs-unixfs-exporter'
import { importer } from 'ipfs-unixfs-importer'
import { CID } from 'multiformats/cid'

async function * candidates (folder, prefix = '') {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const file = `${folder}/${entry.name}`
    const path = prefix + entry.name
    if (entry.isSymbolicLink()) {
      yield { path, link: await readlink(file) }
    } else if (entry.isDirectory()) {
      yield { path }
      yield * candidates(file, `${path}/`)
    } else {
      // A buffer of the file's size: thousands of empty files would fill the memory with large ones.
      const { size } = await lstat(file)
      yield { path, content: createReadStream(file, { highWaterMark: Math.min(size + 1, 1 << 20) }) }
    }
  }
}

// A memory store alone forgets the codecs: it keeps blocks by multihash.
class ArchivedBlockstore extends MemoryBlockstore {
  blocks = new Map()

  put (cid, bytes, options) {
    this.blocks.set(cid.toString(), { cid, bytes })
    return super.put(cid, bytes, options)
  }
}

async function importFolder ({ profile, folder, car }) {
  const store = new ArchivedBlockstore()
  let root
  const options = { profile, wrapWithDirectory: true }
  for await (const entry of importer(candidates(folder), store, options)) root = entry.cid
  const { writer, out } = CarWriter.create([root])
  const written = pipeline(Readable.from(out), createWriteStream(car))
  for (const block of store.blocks.values()) await writer.put(block)
  await writer.close()
  await written
  return { root: root.toString() }
}

async function exportCar ({ car }) {
  const reader = await CarReader.fromIterable(createReadStream(car))
  const [root, ...more] = await reader.getRoots()
  if (root === undefined || more.length > 0) throw new Error('not exactly one root')
  const store = new MemoryBlockstore()
  for await (const { cid, bytes } of reader.blocks()) await store.put(CID.asCID(cid), bytes)
  const entries = []
  await list('', root, store, entries)
  return { root: root.toString(), entries }
}

async function list (path, cid, store, entries) {
  const node = await exporter(cid, store)
  const { unixfs } = node
  const found = { path, type: node.type, size: 0, sha256: '', target: '', mode: 0, mtime: '' }
  if (unixfs !== undefined) {
    found.mode = unixfs.mode
    if (unixfs.mtime !== undefined) {
      found.mtime = `${unixfs.mtime.secs}.${String(unixfs.mtime.nsecs ?? 0).padStart(9, '0')}`
    }
  }
  entries.push(found)
  if (unixfs?.type === 'symlink') {
    found.type = 'symlink'
    found.target = Buffer.from(unixfs.data).toString()
  } else if (node.type === 'directory') {
    for await (const { name, cid } of node.entries()) {
      await list(path === '' ? name : `${path}/${name}`, cid, store, entries)
    }
  } else if (node.type === 'file' || node.type === 'raw') {
    const hash = createHash('sha256')
    for await (const part of node.content()) {
      hash.update(part)
      found.size += part.length
    }
    found.type = 'file'
    found.sha256 = hash.digest('hex')
  }
}

const verbs = { import: importFolder, export: exportCar }
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
