#!/usr/bin/env python3
"""fetch.py ADDRESS PATH [FILE] - get a page of http://ADDRESS/PATH; status 3: nobody answered, 1: something else went wrong"""
import http.client
import sys


def main():
    try:
        connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
        connection.request("GET", "/" + sys.argv[2])
        answer = connection.getresponse()
        page = answer.read()
    except (ConnectionError, http.client.RemoteDisconnected) as e:
        print(f"nobody answered: {e}")
        return 3
    if answer.status != 200 or len(page) != int(answer.headers["Content-Length"]):
        print(f"status {answer.status}, {len(page)} bytes")
        return 1
    if len(sys.argv) > 3:
        with open(sys.argv[3], "wb") as out:
            out.write(page)
    return 0


sys.exit(main())
