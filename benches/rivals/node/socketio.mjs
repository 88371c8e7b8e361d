// Socket.IO: a watcher of `?topic=TOPIC` is in the room TOPIC; events come through the Redis adapter, as from
// @socket.io/redis-emitter. `node socketio.mjs PORT REDIS_PORT`.
import { createServer } from 'node:http'
import { createRequire } from 'node:module'

const require = createRequire(process.env.RIVALS_MODULES + '/')
const { Server } = require('socket.io')
const { createAdapter } = require('@socket.io/redis-adapter')
const { createClient } = require('redis')
const [port, redisPort] = process.argv.slice(2).map(Number)

const publisher = createClient({ url: `redis://127.0.0.1:${redisPort}` })
const subscriber = publisher.duplicate()
await Promise.all([publisher.connect(), subscriber.connect()])
const http = createServer()
const io = new Server(http, {
  adapter: createAdapter(publisher, subscriber),
  transports: ['websocket'],
  serveClient: false,
  perMessageDeflate: false,
  httpCompression: false,
  connectTimeout: 600_000,
})
io.on('connection', (socket) => {
  socket.join(socket.handshake.query.topic)
  // As its documentation advises for many clients: the request is not kept.
  socket.conn.request = null
})
http.listen({ host: '127.0.0.1', port, backlog: 4096 })
