// Fetches through @helia/verified-fetch, whose only way to blocks and records is one trustless gateway.
//
// A line of JSON on standard input is a job, a line on standard output its result, {error} where it failed. Every job
// begins with an empty blockstore. "fetch" gives {status, headers, size, sha256, text} of the response; "car" takes a
// CAR from the gateway, verifies each block and gives {status, type, roots, cids}, and the {sha256, size} of what
// "cat" reads out of its blocks alone.
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'

import { car } from '@helia/car'
import { withHTTP } from '@helia/http'
import { unixfs } from '@helia/unixfs'
import { createVerifiedFetchWithHelia } from '@helia/verified-fetch'
import { CarReader } from '@ipld/car'
import * as dagCbor from '@ipld/dag-cbor'
import * as dagJson from '@ipld/dag-json'
import { createHeliaLight } from 'helia'
import { base36 } from 'multiformats/bases/base36'
import { CID } from 'multiformats/cid'
import * as json from 'multiformats/codecs/json'
import * as Digest from 'multiformats/hashes/digest'
import { identity } from 'multiformats/hashes/identity'
import { sha256 } from 'multiformats/hashes/sha2'

const LIBP2P_KEY = 0x72
const IPNS_PREFIX = '/ipns/'
const SMALL_BYTES = 4096

// The signed records of names come from the gateway, too.
function recordRouter (gateway) {
  return {
    name: 'records-of-a-gateway',
    async * findProviders () {}, // Helia waits for ever if only its fallback router, for the gateway itself, has this
    async get (key, options) {
      const name = CID.createV1(LIBP2P_KEY, Digest.decode(key.subarray(IPNS_PREFIX.length)))
      const url = `${gateway}/ipns/${name.toString(base36)}?format=ipns-record`
      const response = await fetch(url, { signal: options?.signal })
      if (!response.ok) throw new Error(`${url}: ${response.status}`)
      return new Uint8Array(await response.arrayBuffer())
    }
  }
}

async function startHelia (gateway) {
  const helia = createHeliaLight({ codecs: [dagCbor, dagJson, json] })
  withHTTP(helia, { delegatedRouters: [], recursiveGateways: [gateway], allowInsecure: true, allowLocal: true })
  helia.addRouter(recordRouter(gateway))
  await helia.start()
  return helia
}

const verbs = {
  async fetch ({ gateway, resource, headers, method, abort_after: abortAfter, timeout_ms: timeout = 20_000 }) {
    const helia = await startHelia(gateway)
    const verifiedFetch = await createVerifiedFetchWithHelia(helia)
    const controller = new AbortController()
    const signal = AbortSignal.any([controller.signal, AbortSignal.timeout(timeout)])
    let size = 0
    try {
      const response = await verifiedFetch(resource, {
        headers, method, signal, allowInsecure: true, allowLocal: true, redirect: 'manual'
      })
      const hash = createHash('sha256')
      const head = []
      for await (const piece of response.body ?? []) {
        if (size < SMALL_BYTES) head.push(piece)
        size += piece.byteLength
        hash.update(piece)
        if (abortAfter !== undefined && size >= abortAfter) {
          controller.abort()
          break
        }
      }
      const text = size <= SMALL_BYTES ? Buffer.concat(head).toString() : null
      return { status: response.status, headers: Object.fromEntries(response.headers), size, sha256: hash.digest('hex'), text }
    } catch (error) {
      return { error: `${error.name}: ${error.message}`, size }
    } finally {
      await verifiedFetch.stop()
      await helia.stop()
    }
  },

  async car ({ gateway, path, headers, cat }) {
    const response = await fetch(gateway + path, { headers })
    const result = { status: response.status, type: response.headers.get('content-type') }
    if (!response.ok) return result
    const reader = await CarReader.fromBytes(new Uint8Array(await response.arrayBuffer()))
    result.roots = (await reader.getRoots()).map(String)
    result.cids = []
    for await (const { cid, bytes } of reader.blocks()) {
      const digest = cid.multihash.code === sha256.code ? await sha256.digest(bytes) : identity.digest(bytes)
      if (!Buffer.from(digest.bytes).equals(Buffer.from(cid.multihash.bytes))) throw new Error(`${cid} is another block`)
      result.cids.push(String(cid))
    }
    if (cat !== undefined) {
      const helia = createHeliaLight({ codecs: [dagCbor, dagJson, json] })
      await helia.start()
      await car(helia).import(reader)
      const hash = createHash('sha256')
      result.size = 0
      const { cid, ...options } = cat
      for await (const piece of unixfs(helia).cat(CID.parse(cid), { ...options, offline: true })) {
        hash.update(piece)
        result.size += piece.byteLength
      }
      result.sha256 = hash.digest('hex')
      await helia.stop()
    }
    return result
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line)
  const result = await verbs[job.do](job).catch((error) => ({ error: `${error.stack}` }))
  process.stdout.write(`${JSON.stringify(result)}\n`)
}
process.exit() // whatever a library still waits for
