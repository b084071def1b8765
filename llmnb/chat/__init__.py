"""Chats: conversations that remember, by name where they have one, and on disk."""

from llmnb.chat.conversation import Chat as Chat
from llmnb.chat.named import chat_names as chat_names
from llmnb.chat.named import named_chat as named_chat
from llmnb.chat.named import open_chat as open_chat
