"""A stand-in for a Kubernetes API server (kmock's emulator) that takes a client's certificate only.

Writes `ca.pem` and `client.pem` into the folder that it is given, then its port on the screen, and then a line for each request.
"""

import asyncio
import pathlib
import ssl
import sys

import aiohttp.test_utils
import kmock
import trustme

FOLDER = pathlib.Path(sys.argv[1])


def context():
    authority = trustme.CA()
    authority.cert_pem.write_to_path(FOLDER / "ca.pem")
    authority.issue_cert("reprieve@cluster.example").private_key_and_cert_chain_pem.write_to_path(FOLDER / "client.pem")
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(made)
    authority.configure_trust(made)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


class Secure(aiohttp.test_utils.RawTestServer):
    async def start_server(self, *args, **kwargs):
        await super().start_server(*args, ssl=context(), **kwargs)


async def main():
    async with kmock.KubernetesEmulator() as cluster:
        cluster.resources.load_bundled()
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": {"mode": "live"}}
        cluster.objects["v1/configmaps", "shop", "settings"] = config
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 2}}
        cluster.objects["apps/v1/deployments", "shop", "web"] = deployment
        cluster.objects["v1/namespaces", None, "shop"] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        async with kmock.Server(cluster, server_cls=Secure) as server:
            print(server.url.port, flush=True)
            seen = 0
            while True:
                await asyncio.sleep(0.05)
                for request in list(cluster)[seen:]:
                    seen += 1
                    print(request.method.value if hasattr(request.method, "value") else request.method, request.url.path, flush=True)


asyncio.run(main())
