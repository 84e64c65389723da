"""Clients of OpenAI-compatible endpoints, whose key the environment has if they ask for one."""

from typing import Any

import openai

# What is sent where the environment has no key: an endpoint of one's own asks for none.
NO_KEY = "not-needed"


def openai_client(url: str, **settings: Any) -> openai.OpenAI:
    """The client, which finds the key in the environment by itself, if there is one."""
    try:
        return openai.OpenAI(base_url=url, **settings)
    except openai.OpenAIError:
        return openai.OpenAI(base_url=url, **settings, api_key=NO_KEY)


def client_of_own(url: str, **settings: Any) -> openai.OpenAI:
    """A client of a server that was started here: no proxy leads to it, it gets no key, and nothing is asked twice."""
    direct = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=url, api_key=NO_KEY, max_retries=0, http_client=direct, **settings)
